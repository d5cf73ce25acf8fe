"""How much each part of a network loses, as one number goes from 0, nothing, to 1, all that it can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgekd.pruning.importance import Scores
from edgekd.pruning.sensitivity import Curve
from edgekd.pruning.widths import Part

# The smallest error of the answers that counts as one; shares go up from here by orders of magnitude.
_LEAST_ERROR = 1e-6


class Shares(Protocol):
    """How narrow each part becomes."""

    def units(self, strength: float) -> list[int]:
        """The number of units that each part keeps, of those that its multiple allows.

        Args:
            strength: 0 keeps all, 1 as little as possible; in between no part becomes wider as it grows.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """Every part loses the same fraction of its channels."""

    parts: Sequence[Part]
    multiple: int

    def units(self, strength: float) -> list[int]:
        return [_nearest(part, strength, self.multiple) for part in self.parts]


@dataclass(frozen=True)
class Global:
    """The least important channels of the whole network go: parts without important ones lose more.

    Attributes:
        scores: of every channel, comparable between layers.
    """

    parts: Sequence[Part]
    multiple: int
    scores: Scores

    def units(self, strength: float) -> list[int]:
        own = [np.array([self.scores.get(channel, 0.0) for channel in sorted(part.channels)]) for part in self.parts]
        ranked = np.sort(np.concatenate(own))
        lost = round(strength * len(ranked))
        bound = ranked[lost - 1] if lost else -math.inf
        return [
            _nearest(part, float((scores <= bound).mean()), self.multiple)
            for part, scores in zip(self.parts, own, strict=True)
        ]


@dataclass(frozen=True)
class BySensitivity:
    """Every part is narrowed until cutting it alone would change the answers by the same amount.

    Attributes:
        curves: of the parts, in their order.
    """

    parts: Sequence[Part]
    multiple: int
    curves: Sequence[Curve]

    def units(self, strength: float) -> list[int]:
        most = max(_LEAST_ERROR * 10, *(max(curve.errors) for curve in self.curves)) * 2
        bound = _LEAST_ERROR * (most / _LEAST_ERROR) ** strength if strength > 0.0 else 0.0
        return [
            _nearest(part, 1.0 if strength >= 1.0 else _share_at(curve, bound), self.multiple)
            for part, curve in zip(self.parts, self.curves, strict=True)
        ]


def _share_at(curve: Curve, bound: float) -> float:
    """The largest fraction of a part that changes the answers by at most `bound`, interpolated."""
    # Without all of its channels a part passes nothing on, whatever its curve says.
    shares, errors = [0.0, *curve.shares, 1.0], [0.0, *curve.errors, 2 * max(*curve.errors, _LEAST_ERROR)]
    rising = np.maximum.accumulate(errors) + np.arange(len(errors)) * 1e-12
    return float(np.interp(bound, rising, shares))


def _nearest(part: Part, share: float, multiple: int) -> int:
    """The number of units nearest to what remains of a part without `share`, of those that are allowed."""
    wanted = (1.0 - share) * part.unit
    return min(part.counts(multiple), key=lambda count: (abs(count - wanted), count))
