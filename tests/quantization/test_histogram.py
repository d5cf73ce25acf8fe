"""Counts by hand, and the same ones in whatever order the values come."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from edgekd.errors import ModelError
from edgekd.quantization.histogram import BINS, Histogram


def _of(*batches: torch.Tensor) -> Histogram:
    histogram = Histogram("value")
    for batch in batches:
        histogram.add(batch)
    return histogram


def test_absolute_values_are_counted_in_bins_of_a_power_of_two():
    found = _of(torch.tensor([0.0, -3.0, 0.25, -0.25, 2.5]))
    assert found.largest == 3.0
    assert found.width == 4.0 / BINS
    places = {int(place): int(found.counts[place]) for place in np.flatnonzero(found.counts)}
    assert places == {0: 1, BINS // 16: 2, 5 * BINS // 8: 1, 3 * BINS // 4: 1}


def test_a_power_of_two_lies_in_the_bin_that_begins_there():
    for batches in ([4.0], [1.0, 4.0], [4.0, 1.0]):
        found = _of(*(torch.tensor([each]) for each in batches))
        assert found.width == 8.0 / BINS and found.counts[BINS // 2] == 1


def test_the_order_of_batches_has_no_influence():
    torch.manual_seed(0)
    batches = [factor * torch.randn(2, 3, 5, 7) for factor in (1e-20, 0.01, 1.0, 300.0)]
    batches[1] = batches[1].contiguous(memory_format=torch.channels_last).relu()
    whole = _of(torch.cat([batch.flatten() for batch in batches]))
    for order in itertools.permutations(batches):
        found = _of(*order)
        assert (found.largest, found.width) == (whole.largest, whole.width)
        np.testing.assert_array_equal(found.counts, whole.counts)


def test_more_values_are_counted_than_a_float32_can_count():
    # 2 ** 24 + 1 is no float32.
    assert _of(torch.zeros(2**24 + 1)).counts[0] == 2**24 + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_value_that_no_grid_can_hold_is_refused_by_name(value):
    with pytest.raises(ModelError, match="cannot be calibrated: value is .* on a calibration image"):
        _of(torch.tensor([0.0, value]))


def test_of_a_large_map_some_rows_and_columns_are_counted_and_all_looked_at():
    values = torch.zeros(2, 3, 64, 33)
    values[0, 0, 1, 1] = 7.0  # between those that are counted
    values[1, 2, 2, 2] = 5.0
    found = _of(values)
    assert found.largest == 7.0
    assert found.counts.sum() == 2 * 3 * 32 * 17
    assert found.counts[5 * BINS // 8] == 1 and found.counts[7 * BINS // 8] == 0
