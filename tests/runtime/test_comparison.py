from __future__ import annotations

import numpy as np
import pytest

from edgekd.runtime.comparison import difference
from edgekd.runtime.statistics import packed, paired, score_of


def test_rows_are_compared_by_their_own_score() -> None:
    one, other = np.arange(40) % 4 > 0, np.arange(40) % 2 > 0
    rows = [{"accuracy": float(each.mean()), "correct": packed(each), "samples": 40} for each in (one, other)]
    assert [score_of(row) for row in rows] == [0.75, 0.5]
    assert difference(*rows) == paired(one, other)
    sets = [{"mAP": 0.8, "replicates": [0.7, 0.8, 0.9]}, {"mAP": 0.5, "replicates": [0.5, 0.5, 0.5]}]
    gap = difference(*sets)
    assert score_of(sets[0]) == 0.8 and gap.value == pytest.approx(0.3)
    assert (gap.low, gap.high) == pytest.approx((0.205, 0.395)) and gap.certain
