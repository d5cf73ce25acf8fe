"""Every method by hand or against a formula written anew, on known histograms, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgekd.quantization.calibrators import METHODS, entropy, min_max, mse, percentile
from edgekd.quantization.histogram import BINS, Histogram


def _of(values: torch.Tensor) -> Histogram:
    histogram = Histogram("value")
    histogram.add(values)
    return histogram


def _made(counts: dict[int, int], largest: float) -> Histogram:
    """With bins of width 1 / BINS."""
    histogram = _of(torch.tensor([0.75]))
    histogram.counts[:] = 0
    for place, count in counts.items():
        histogram.counts[place] = count
    histogram.largest = largest
    return histogram


@pytest.fixture(scope="module")
def tailed() -> Histogram:
    """Normal values with a few far outside."""
    torch.manual_seed(0)
    return _of(torch.cat([torch.randn(200_000), torch.tensor([13.0, -14.5])]))


def test_min_max_is_the_largest_value():
    assert min_max(_of(torch.tensor([0.5, -2.75, 1.0]))) == 2.75


def test_percentile_cuts_one_in_ten_thousand():
    kept = {99: 9_999, 3000: 1}
    assert percentile(_made(kept, 3000.5 / BINS)) == 100 / BINS
    assert percentile(_made({99: 9_998, 3000: 2}, 3000.5 / BINS)) == 3000.5 / BINS


def test_mse_weighs_clipping_against_steps():
    # By hand: where all values are on 127 equal steps of some candidate, that one has no error but the middles'.
    histogram = _made({3999: 1, 2000: 1_000_000}, 3999.5 / BINS)
    found = mse(histogram)
    edges = [4000 - 16 * each for each in range(250) if 4000 - 16 * each >= 256]
    costs = [_squared_error({3999: 1, 2000: 1_000_000}, edge) for edge in edges]
    assert found == edges[costs.index(min(costs))] / BINS < 3999.5 / BINS


def _squared_error(counts: dict[int, int], edge: int) -> float:
    """In bins, one value after the other."""
    total = 0.0
    for place, count in counts.items():
        step = min(round((place + 0.5) * 127 / edge), 127)
        total += count * (place + 0.5 - step * edge / 127) ** 2
    return total


def test_entropy_is_that_of_the_formula(tailed):
    counts = [int(count) for count in tailed.counts]
    counts[0] = counts[1]
    used = max(place for place, count in enumerate(counts) if count) + 1
    edges = [edge for edge in range(used, 255, -16) if edge >= 256]
    costs = [_divergence(counts, edge) for edge in edges]
    best = edges[costs.index(min(costs))]
    assert entropy(tailed) == pytest.approx(min(best * tailed.width, tailed.largest), rel=1e-12)
    assert entropy(tailed) < 0.6 * tailed.largest


def _divergence(counts: list[int], edge: int) -> float:
    """As Migacz 2017 states it, element by element."""
    reference = [float(count) for count in counts[:edge]]
    reference[-1] += sum(counts[edge:])
    candidate = [0.0] * edge
    for step in range(128):
        places = [place for place in range(edge) if place * 128 // edge == step]
        held = [place for place in places if reference[place] > 0]
        for place in held:
            candidate[place] = sum(counts[each] for each in places) / len(held)
    total = 0.0
    for p, q in zip(reference, candidate, strict=True):
        if p > 0 and q == 0:
            return math.inf
        if p > 0:
            total += p / sum(reference) * math.log(p / sum(reference) * sum(candidate) / q)
    return total


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_a_range_that_has_no_tail(method):
    found = METHODS[method](_of(torch.linspace(-3.0, 3.0, 100_001)))
    assert found == pytest.approx(3.0, rel=0.02)
    assert found <= 3.0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_within_the_values(method, tailed):
    found = METHODS[method](tailed)
    assert 2.0 < found <= tailed.largest
    assert (found == tailed.largest) == (method == "min-max")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 5.0])
def test_every_method_takes_a_tensor_of_one_value(method, value):
    assert METHODS[method](_of(torch.full((64,), value))) == pytest.approx(value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_scales_with_the_values(method, tailed):
    torch.manual_seed(0)
    wider = _of(8 * torch.cat([torch.randn(200_000), torch.tensor([13.0, -14.5])]))
    assert METHODS[method](wider) == 8 * METHODS[method](tailed)
    assert isinstance(METHODS[method](wider), float) and np.isfinite(METHODS[method](wider))
