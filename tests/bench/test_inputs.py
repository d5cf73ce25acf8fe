from __future__ import annotations

import numpy as np
import pytest

from edgekd.bench.inputs import TYPES, described_values, random_input


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 16, 16)])
def test_values_are_of_their_type_as_described_and_the_same_each_time(dtype, shape):
    array = random_input(shape, dtype)
    assert array.shape == shape and array.dtype.kind == np.dtype(dtype).kind
    assert dtype == "str" or array.dtype == np.dtype(dtype)
    assert np.array_equal(array, random_input(shape, dtype))
    described = described_values(shape, dtype)
    if "0 or 1" in described:
        assert set(array.ravel().tolist()) <= {0, 1}
    elif described == "all 1":
        assert (array == 1).all()
    elif "uniform" in described:
        limits = np.iinfo(dtype)
        assert described.endswith(f"from {limits.min} to {limits.max}")
        if array.size > 1000:
            assert (array.min(), array.max()) == (limits.min, limits.max)
    elif "digits" in described:
        assert set("".join(array.ravel().tolist())) <= set("0123456789")
    else:
        assert described.startswith("random: normal")
    if array.size > 1000:
        assert len(np.unique(array)) > 1 and not np.array_equal(array, random_input(shape, dtype, stream=1))


def test_lengths_and_counts_are_never_zero():
    for shape in ((), (32,)):
        assert (random_input(shape, "int64") == 1).all()
