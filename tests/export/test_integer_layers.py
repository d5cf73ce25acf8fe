"""The layers' forms that ONNX Runtime computes in integers: the same answers as before, from other operators."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from paired_graphs import applied, fused, grids, model_of, pair, run

from edgekd.export.integer_layers import integer_bias, integer_pool, padded_channels, shared_grids
from edgekd.export.qdq import with_unsigned_activations

RNG = np.random.default_rng(0)


def _weight(shape):
    """A stored int8 weight with one scale per output, as nodes' constants; its node makes `weight`."""
    constants = {
        "w": RNG.integers(-127, 128, shape, dtype=np.int8),
        "w_s": RNG.uniform(0.001, 0.01, shape[0]).astype(np.float32),
        "w_z": np.zeros(shape[0], np.int8),
    }
    return helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["weight"], axis=0), constants


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_mean_over_rows_and_columns_is_computed_in_integers(keepdims, axes, tmp_path):
    mean = helper.make_node("ReduceMean", ["a"], ["m"], axes=axes, keepdims=keepdims)
    nodes = [*pair("x", "a", "in"), mean, *pair("m", "y", "out")]
    constants = grids(**{"in": 1 / 127, "out": 0.5 / 127})
    model = model_of(nodes, constants, shape=("n", 8, 5, 7), rank=4 if keepdims else 2)
    found = applied(integer_pool, model)
    assert fused(found, tmp_path)["QLinearGlobalAveragePool"] == 1 and not fused(found, tmp_path)["ReduceMean"]
    x = RNG.uniform(-1, 1, (3, 8, 5, 7)).astype(np.float32)
    by_hand = (np.rint(x * 127) / 127).mean((2, 3), keepdims=bool(keepdims))
    assert run(found, x).shape == by_hand.shape
    np.testing.assert_allclose(run(found, x), by_hand, atol=0.51 * 0.5 / 127)


@pytest.mark.parametrize(("axes", "shape"), [([1], ("n", 8, 5, 7)), ([2, 3], ("n", 8, 5, 7, 2))])
def test_other_means_stay_as_they_are(axes, shape):
    mean = helper.make_node("ReduceMean", ["a"], ["m"], axes=axes, keepdims=1)
    model = model_of([*pair("x", "a", "in"), mean, *pair("m", "y", "in")], grids(**{"in": 1 / 127}), shape=shape)
    assert "ReduceMean" in [node.op_type for node in applied(integer_pool, model).graph.node]


def _classifier(bias, **attributes):
    node, constants = _weight((4, 6))
    gemm = helper.make_node("Gemm", ["a", "weight", "b"], ["y"], transB=1, **attributes)
    constants |= {**grids(**{"in": 2 / 127}), "b": np.float32(bias)}
    return model_of([*pair("x", "a", "in"), node, gemm], constants, shape=("n", 6))


def test_a_linear_layer_with_a_bias_is_computed_in_integers(tmp_path):
    model = _classifier([0.5, -3.0, 0.0, 20.0])
    found = applied(integer_bias, model)
    assert fused(with_unsigned_activations(model), tmp_path)["QGemm"] == 0
    assert fused(found, tmp_path) == {"QuantizeLinear": 1, "QGemm": 1}
    x = RNG.uniform(-2, 2, (5, 6)).astype(np.float32)
    # The bias is rounded to steps of scale(input) * scale(weight), at most 0.01 * 2 / 127.
    np.testing.assert_allclose(run(found, x), run(model, x, as_written=True), atol=0.51 * 0.01 * 2 / 127, rtol=1e-5)


@pytest.mark.parametrize(("bias", "attributes"), [([1e9] * 4, {}), ([1.0] * 4, {"beta": 2.0})])
def test_a_bias_that_is_no_int32_stays_in_float(bias, attributes):
    found = applied(integer_bias, _classifier(bias, **attributes))
    gemm = next(node for node in found.graph.node if node.op_type == "Gemm")
    assert gemm.input[2] == "b"


@pytest.mark.parametrize("channels", [3, 1, 4])
def test_three_input_channels_become_four_without_another_answer(channels):
    node, constants = _weight((8, channels, 3, 3))
    conv = helper.make_node("Conv", ["a", "weight"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2])
    nodes = [*pair("x", "a", "in"), node, conv, *pair("c", "y", "out")]
    model = model_of(nodes, constants | grids(**{"in": 2 / 127, "out": 0.1}), shape=("n", channels, 9, 9))
    found = applied(padded_channels, model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in found.graph.initializer}
    assert (8, 4, 3, 3) in shapes.values() or channels == 1
    x = RNG.uniform(-2, 2, (2, channels, 9, 9)).astype(np.float32)
    for as_written in (True, False):
        before = run(with_unsigned_activations(model), x, as_written=as_written)
        np.testing.assert_array_equal(run(found, x, as_written=as_written), before)


def _image_read_by(other):
    """A convolution of an image, whose output is added to that of another node."""
    node, constants = _weight((3, 3, 3, 3))
    conv = helper.make_node("Conv", ["a", "weight"], ["c"], pads=[1, 1, 1, 1])
    nodes = [*pair("x", "a", "in"), node, conv, *pair("c", "d", "out"), other]
    nodes += [helper.make_node("Add", ["d", "o"], ["s"]), *pair("s", "y", "out")]
    return model_of(nodes, constants | grids(**{"in": 2 / 127, "out": 0.1}), shape=("n", 3, 9, 9))


@pytest.mark.parametrize(
    "other",
    [
        helper.make_node("Identity", ["a"], ["o"]),
        helper.make_node("ReduceMean", ["a"], ["o"], axes=[1]),
        helper.make_node("Conv", ["a", "weight"], ["o"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "weight"], ["o"], pads=[1, 1, 1, 1]),
    ],
)
def test_an_image_or_weight_that_something_else_reads_keeps_its_channels(other):
    model = _image_read_by(other)
    found = applied(padded_channels, model)
    assert "Pad" not in [node.op_type for node in found.graph.node]
    x = RNG.uniform(-2, 2, (2, 3, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(run(found, x), run(with_unsigned_activations(model), x))


def test_the_channels_of_groups_are_not_the_image_s():
    node, constants = _weight((8, 3, 3, 3))
    conv = helper.make_node("Conv", ["a", "weight"], ["c"], group=2)
    nodes = [*pair("x", "a", "in"), node, conv, *pair("c", "y", "out")]
    model = model_of(nodes, constants | grids(**{"in": 2 / 127, "out": 0.1}), shape=("n", 6, 9, 9))
    assert "Pad" not in [node.op_type for node in applied(padded_channels, model).graph.node]


def _concatenation(first="Relu", second="Relu"):
    nodes = [
        *pair("x", "a", "in"),
        helper.make_node(first, ["a"], ["f"]),
        *pair("f", "left", "coarse"),
        helper.make_node(second, ["a"], ["s"]),
        *pair("s", "right", "fine"),
        helper.make_node("Concat", ["left", "right"], ["c"], axis=1),
        *pair("c", "y", "coarse"),
    ]
    return model_of(nodes, grids(**{"in": 0.02, "coarse": 0.02, "fine": 0.001}), shape=("n", 4))


def test_the_parts_of_a_concatenation_are_rounded_to_its_steps_at_once():
    found = applied(shared_grids, _concatenation())
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    scales = [float(held[node.input[1]]) for node in found.graph.node if node.op_type == "QuantizeLinear"]
    assert scales[1:] == pytest.approx([0.02 * 127 / 255] * 3) and len(set(scales[1:])) == 1


@pytest.mark.parametrize(("parts", "kept"), [(("Relu", "Identity"), 0.001), (("Neg", "Relu"), 0.001 * 127 / 255)])
def test_a_part_that_is_moved_or_has_another_zero_keeps_its_steps(parts, kept):
    found = applied(shared_grids, _concatenation(*parts))
    assert np.float32(kept) in [numpy_helper.to_array(tensor) for tensor in found.graph.initializer]


def test_a_part_that_something_else_reads_keeps_its_steps():
    model = _concatenation()
    model.graph.node.append(helper.make_node("Neg", ["right"], ["other"]))
    found = applied(shared_grids, model)
    held = [numpy_helper.to_array(tensor) for tensor in found.graph.initializer]
    assert np.float32(0.001 * 127 / 255) in held
