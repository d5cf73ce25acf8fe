from __future__ import annotations

import numpy as np
import pytest

from edgekd.bench.inputs import plan_input, random_input
from edgekd.errors import BenchError
from edgekd.runtime.backends import TensorInfo

DYNAMIC = TensorInfo("image", ("n", 3, "height", "width"), "float32")
FIXED = TensorInfo("image", (4, 3, 8, 8), "float32")


def test_dynamic_batch_leaves_the_rest():
    info = TensorInfo("image", ("n", 3, 8, 8), "float16")
    assert plan_input([info], (1, 8), None) == (info, (3, 8, 8))


def test_a_given_shape_fills_dynamic_dimensions_and_fits_fixed_ones():
    assert plan_input([DYNAMIC], (2,), (1, 3, 32, 48))[1] == (3, 32, 48)
    assert plan_input([FIXED], (4,), (4, 3, 8, 8))[1] == (3, 8, 8)


@pytest.mark.parametrize(
    "inputs, batch_sizes, shape, parts",
    [
        ([], (1,), None, ["exactly one input", "no input"]),
        ([FIXED, TensorInfo("mask", ("n", 8), "bool")], (4,), None, ["image (4, 3, 8, 8)", "mask (n, 8)"]),
        ([TensorInfo("x", (), "float32")], (1,), None, ["no batch dimension", "shape ()"]),
        ([TensorInfo("x", (5,), "float32")], (5,), None, ["no batch dimension", "shape (5)"]),
        ([TensorInfo("tokens", ("n", 8), "int64")], (1,), None, ["random values", "int64", "uint8"]),
        ([FIXED], (1,), None, ["fixed at 4", "requested 1", "--batch 4"]),
        ([FIXED], (4, 8), None, ["fixed at 4", "requested 4, 8"]),
        ([DYNAMIC], (1,), None, ["dynamic dimensions", "(n, 3, height, width)", "--input-shape"]),
        ([DYNAMIC], (1,), (1, 4, 8, 8), ["does not fit", "(1, 4, 8, 8)", "(n, 3, height, width)"]),
        ([DYNAMIC], (1,), (1, 3, 8), ["does not fit", "(1, 3, 8)"]),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_reason(inputs, batch_sizes, shape, parts):
    with pytest.raises(BenchError) as caught:
        plan_input(inputs, batch_sizes, shape)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
def test_inputs_are_random_of_their_type_and_the_same_each_time(dtype):
    array = random_input((2, 3, 16, 16), dtype)
    assert (array.shape, array.dtype) == ((2, 3, 16, 16), np.dtype(dtype))
    assert array.std() > 0.9
    assert np.array_equal(array, random_input((2, 3, 16, 16), dtype))
