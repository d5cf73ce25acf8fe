"""Two rows of an evaluation compared: how two models differ on the same test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.runtime import average_precision, statistics
from edgekd.runtime.statistics import Difference, score_of


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> Difference:
    """The difference of two rows' scores with its 95 % interval, paired by image."""
    if "mAP" in one:
        return average_precision.paired(score_of(one) - score_of(other), one["replicates"], other["replicates"])
    mine, theirs = (statistics.unpacked(row["correct"], row["samples"]) for row in (one, other))
    return statistics.paired(mine, theirs)
