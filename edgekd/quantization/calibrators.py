"""Where to clip an activation: four methods on a histogram of its absolute values.

Each returns `amax`: the value that becomes step 127 of a symmetric int8 grid. A lower one makes finer steps for most
values, and cuts the few that are larger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgekd.quantization.histogram import Histogram

_STEPS = 127
# Of the values, the share that percentile() does not cut.
_KEPT = 0.9999
# The candidates of entropy() and mse(), in bins: one in 16, from two bins a step on.
_FIRST, _STRIDE = 2 * (_STEPS + 1), 16

Floats = npt.NDArray[np.float64]


def min_max(histogram: Histogram) -> float:
    """The largest value."""
    return histogram.largest


def percentile(histogram: Histogram) -> float:
    """The least edge of a bin that 99.99 % of the values do not exceed."""
    reached = np.cumsum(histogram.counts)
    edge = int(np.searchsorted(reached, _KEPT * reached[-1])) + 1
    return min(edge * histogram.width, histogram.largest)


def entropy(histogram: Histogram) -> float:
    """The least Kullback-Leibler divergence of the values from those on 128 steps (Migacz 2017, "8-bit Inference").

    Values at 0 are exact on every grid, so the first bin counts as much as the second.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    return _least(histogram, lambda edge: _divergence(counts, edge))


def mse(histogram: Histogram) -> float:
    """The least mean squared error of the values on the grid, each taken at the middle of its bin."""
    middles = (np.arange(len(histogram.counts)) + 0.5) * histogram.width

    def error(edge: int) -> float:
        scale = edge * histogram.width / _STEPS
        on_grid = np.minimum(np.rint(middles / scale), _STEPS) * scale
        return float((histogram.counts * (middles - on_grid) ** 2).sum())

    return _least(histogram, error)


METHODS: Mapping[str, Callable[[Histogram], float]] = {
    "min-max": min_max,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _least(histogram: Histogram, cost: Callable[[int], float]) -> float:
    """The candidate of the least cost; the widest of equal ones."""
    used = int(histogram.largest / histogram.width) + 1
    edges: list[int] = [used, *range(used - _STRIDE, _FIRST - 1, -_STRIDE)]
    costs = [cost(edge) for edge in edges]
    return min(edges[costs.index(min(costs))] * histogram.width, histogram.largest)


def _divergence(counts: Floats, edge: int) -> float:
    """Of the values cut at a bin's edge, from the same on 128 steps; infinite where a value has no place there."""
    inside = counts[:edge]
    real = inside.copy()
    real[-1] += counts[edge:].sum()
    step = np.arange(edge) * (_STEPS + 1) // edge
    held = real > 0
    # Each step's values are spread evenly over those of its bins that hold any.
    spread = np.bincount(step, inside) / np.maximum(np.bincount(step, held), 1)
    found = spread[step][held]
    if not (found > 0).all():
        return float("inf")
    p, q = real[held] / real.sum(), found / found.sum()
    return float((p * np.log(p / q)).sum())
