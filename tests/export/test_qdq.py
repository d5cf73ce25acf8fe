"""The passes over Q/DQ pairs, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.export.qdq import with_float_weights, with_unsigned_activations, without_fused_branches


def _model(nodes, constants, *, shape=("n", 2)) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pair(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, "s", "z"], [f"{result}_q"], name=f"q_{result}"),
        helper.make_node("DequantizeLinear", [f"{result}_q", "s", "z"], [result], name=f"dq_{result}"),
    ]


GRID = {"s": np.float32(0.5), "z": np.int8(0)}


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


def test_a_value_of_either_sign_keeps_its_steps():
    model = _model(_pair("x", "y"), GRID)
    x = np.array([[-70.0, -0.3], [63.4, 80.0]], np.float32)
    by_hand = np.array([[-64.0, -0.5], [63.5, 63.5]], np.float32)  # -128 to 127 steps of a half
    np.testing.assert_array_equal(_run(model, x), by_hand)
    np.testing.assert_array_equal(_run(with_unsigned_activations(model), x), by_hand)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([helper.make_node("Relu", ["x"], ["a"])], {}),
        ([helper.make_node("Clip", ["x", "low", "high"], ["a"])], {"low": np.float32(0), "high": np.float32(6)}),
        ([helper.make_node("Sigmoid", ["x"], ["a"])], {}),
        ([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Concat", ["r", "r"], ["a"], axis=0)], {}),
        ([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["r"], ["a"])], {}),
        ([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Mul", ["r", "r"], ["a"])], {}),
    ],
)
def test_a_value_that_is_never_below_zero_gets_finer_steps_over_the_same_range(nodes, constants):
    model = with_unsigned_activations(_model([*nodes, *_pair("a", "y")], {**GRID, **constants}))
    onnx.checker.check_model(model, full_check=True)
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert held[quantize.input[2]].dtype == np.uint8 and held[quantize.input[2]] == 0
    assert held[quantize.input[1]] == np.float32(0.5 * 127 / 255)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([helper.make_node("Clip", ["x", "low"], ["a"])], {"low": np.float32(-90)}),
        ([helper.make_node("Clip", ["x"], ["a"])], {}),
        ([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "x"], ["a"])], {}),
        ([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Mul", ["r", "c"], ["a"])], {"c": np.float32(-1)}),
    ],
)
def test_a_value_that_may_be_below_zero_gets_the_middle_as_its_zero(nodes, constants):
    model = with_unsigned_activations(_model([*nodes, *_pair("a", "y")], {**GRID, **constants}))
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert held[quantize.input[2]] == 128 and held[quantize.input[1]] == np.float32(0.5)


@pytest.mark.parametrize(
    ("node", "lowest"),
    [
        (helper.make_node("HardSwish", ["x"], ["a"]), -0.375),
        (helper.make_node("Clip", ["x", "low"], ["a"]), -8.0),
    ],
)
def test_a_value_that_is_never_far_below_zero_gets_a_range_that_begins_there(node, lowest):
    model = with_unsigned_activations(_model([node, *_pair("a", "y")], {**GRID, "low": np.float32(-8)}))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale, zero = held[quantize.input[1]], int(held[quantize.input[2]])
    assert zero * scale >= -lowest > (zero - 2) * scale  # 2 and 29 of 255 steps
    assert (255 - zero) * scale == pytest.approx(63.5) and scale < 0.6 * 0.5


def test_weights_stay_as_they_are():
    weight = np.arange(-4, 4, dtype=np.int8).reshape(2, 2, 2, 1)[:, :, :1]
    nodes = [
        *_pair("x", "a"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weight"], axis=0),
        helper.make_node("Conv", ["a", "weight"], ["y"]),
    ]
    constants = {**GRID, "w": weight, "ws": np.float32([1, 2]), "wz": np.int8([0, 0])}
    model = with_unsigned_activations(_model(nodes, constants, shape=("n", 2, 3, 3)))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(held["w"], weight)
    assert held["wz"].dtype == np.int8 and "z" not in held


def _residual(skip: str) -> onnx.ModelProto:
    """x → pair → convolution → pair → addition with `skip`'s pair."""
    nodes = [
        *_pair("x", "a"),
        helper.make_node("Conv", ["a", "w"], ["c"], name="conv"),
        *_pair("c", "left"),
        *([helper.make_node("Conv", ["a", "w"], ["d"], name="other"), *_pair("d", "right")] if skip == "conv" else []),
        helper.make_node("Add", ["left", "right" if skip == "conv" else "a"], ["y"]),
    ]
    return _model(nodes, {**GRID, "w": np.eye(2, dtype=np.float32)[:, :, None, None]}, shape=("n", 2, 3, 3))


@pytest.mark.parametrize(("skip", "left"), [("input", ["c", "a"]), ("conv", ["c", "right"])])
def test_of_an_additions_inputs_one_convolution_is_left_to_fuse(skip, left):
    model = _residual(skip)
    found = without_fused_branches(model)
    onnx.checker.check_model(found, full_check=True)
    assert list(next(node for node in found.graph.node if node.op_type == "Add").input) == left
    assert len(found.graph.node) == len(model.graph.node) - 2


def test_a_value_that_others_use_too_stays_quantized():
    model = _residual("input")
    model.graph.node.append(helper.make_node("Relu", ["left"], ["z2"]))
    assert len(without_fused_branches(model).graph.node) == len(model.graph.node)


@pytest.mark.parametrize("axis", [0, 1])
def test_float_weights_fall_on_the_very_same_steps(axis):
    rng = np.random.default_rng(0)
    steps = rng.integers(-128, 128, (64, 64, 1, 1), dtype=np.int8)
    constants = {"w": steps, "ws": rng.uniform(1e-6, 0.3, 64).astype(np.float32), "wz": np.zeros(64, np.int8)}
    stored = _model(
        [helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["y"], axis=axis)], constants, shape=steps.shape
    )
    found = with_float_weights(stored)
    onnx.checker.check_model(found, full_check=True)
    assert [node.op_type for node in found.graph.node] == ["QuantizeLinear", "DequantizeLinear"]
    assert {tensor.data_type for tensor in found.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT8}
    nothing = np.zeros(steps.shape, np.float32)
    np.testing.assert_array_equal(_run(found, nothing), _run(stored, nothing))
