"""Hard-swish, hard-sigmoid and SiLU on uint8 values, against their formulas in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from paired_graphs import applied, fused, grids, model_of, pair, run

from edgekd.export._pairs import PairedGraph
from edgekd.export.gates import integer_hard_sigmoid, integer_hard_swish, integer_silu
from edgekd.export.integer_layers import shared_grids
from edgekd.export.qdq import with_unsigned_activations


def _hard_swish(x):
    return x * np.clip(x + 3, 0, 6) / 6


def _silu(x):
    return x / (1 + np.exp(-x))


def _scales(model, result):
    own = PairedGraph(model)
    return own.scale_and_zero(own.pair_of(result).quantize)


def _hard_swish_graph(highest):
    nodes = [*pair("x", "a", "in"), helper.make_node("HardSwish", ["a"], ["h"]), *pair("h", "y", "out")]
    return model_of(nodes, grids(**{"in": highest / 127, "out": _hard_swish(highest) / 127}), shape=("n", 8))


def test_the_grid_of_a_hard_swish_begins_at_minus_3_and_has_a_whole_number_of_steps_to_0():
    model = applied(integer_hard_swish, _hard_swish_graph(9.7))
    scale, zero = _scales(model, "a")
    assert zero == 60 and scale == np.float32(3 / 60)  # 255 * 3 / 12.7 is 60.2
    assert (255 - zero) * scale >= 9.7
    scale, zero = _scales(model, "y")
    assert zero == 10 and scale == pytest.approx(9.7 / 245)  # 255 * 0.375 / 10.075 is 9.5


@pytest.mark.parametrize("highest", [3.1, 9.7, 40.0])
@pytest.mark.parametrize("as_written", [False, True])
def test_a_hard_swish_in_integers_is_the_formula_rounded_once(highest, as_written):
    model = applied(integer_hard_swish, _hard_swish_graph(highest))
    (scale, zero), (step, _) = _scales(model, "a"), _scales(model, "y")
    x = ((np.arange(256) - zero) * scale).astype(np.float32).reshape(-1, 8)
    exact = np.minimum(_hard_swish(x.astype(np.float64)), _hard_swish(highest))
    assert np.abs(run(model, x, as_written=as_written) - exact).max() <= 0.5001 * step


def test_what_lies_below_the_grid_of_a_hard_swish_becomes_0():
    model = applied(integer_hard_swish, _hard_swish_graph(9.7))
    assert not run(model, np.full((1, 8), -9.0, np.float32)).any()


@pytest.mark.parametrize("highest", [0.2, 1.0, 2.9, 900.0])
def test_a_hard_swish_keeps_steps_that_would_be_coarser_from_minus_3_on(highest):
    model = applied(integer_hard_swish, _hard_swish_graph(highest))
    (scale, zero), (step, _) = _scales(model, "a"), _scales(model, "y")
    assert zero == 128 and scale == np.float32(highest / 127)
    x = ((np.arange(1, 256) - zero) * scale).astype(np.float32)[:248].reshape(-1, 8)
    # The gate is rounded to steps of 1/255 as well.
    allowed = 0.5001 * step + np.abs(x) * 0.5001 / 255
    assert (np.abs(run(model, x) - _hard_swish(x.astype(np.float64))) <= allowed).all()


@pytest.mark.parametrize(("highest", "operators"), [(9.7, {"Clip", "QLinearMul"}), (1.0, {"QLinearAdd", "QLinearMul"})])
def test_onnx_runtime_computes_a_hard_swish_in_integers(highest, operators, tmp_path):
    found = fused(applied(integer_hard_swish, _hard_swish_graph(highest)), tmp_path)
    assert found == dict.fromkeys((*operators, "QuantizeLinear", "DequantizeLinear"), 1)


def test_values_that_something_else_reads_too_keep_their_grid():
    model = _hard_swish_graph(9.7)
    model.graph.node.append(helper.make_node("Neg", ["a"], ["other"]))
    found = applied(integer_hard_swish, model)
    assert [node.op_type for node in found.graph.node].count("HardSwish") == 1
    assert _scales(found, "a") == (np.float32(9.7 / 127), 128)


def _gated(*, bias, weight=(0.5, -2.0), highest=1.0, alpha=1 / 6):
    """x → pair → 1x1 convolution → pair → hard-sigmoid → pair."""
    steps = np.int8([[127, 0], [0, -127]])[:, :, None, None]
    nodes = [
        *pair("x", "a", "in"),
        helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["weight"], axis=0),
        helper.make_node("Conv", ["a", "weight", *(["b"] if bias is not None else [])], ["c"]),
        *pair("c", "g", "between"),
        helper.make_node("HardSigmoid", ["g"], ["h"], alpha=alpha, beta=0.5),
        *pair("h", "y", "out"),
    ]
    constants = grids(**{"in": 4 / 127, "between": 0.1, "out": highest / 127})
    scales = np.abs(np.float32(weight)) / 127
    constants |= {"w": steps, "w_s": scales, "w_z": np.zeros(2, np.int8)}
    constants |= {} if bias is None else {"b": np.float32(bias)}
    return model_of(nodes, constants, shape=("n", 2, 1, 1))


@pytest.mark.parametrize("bias", [None, (0.7, -1.2)])
@pytest.mark.parametrize("alpha", [1 / 6, 0.2])
def test_the_convolution_before_a_hard_sigmoid_computes_it(bias, alpha, tmp_path):
    model = applied(integer_hard_sigmoid, _gated(bias=bias, alpha=alpha))
    assert fused(model, tmp_path) == {"QuantizeLinear": 1, "QLinearConv": 1, "DequantizeLinear": 1}
    x = (np.random.default_rng(0).integers(-127, 128, (64, 2, 1, 1)) * (4 / 127)).astype(np.float32)
    exact = x.astype(np.float64) * np.array([0.5, -2.0])[:, None, None] + np.reshape(bias or (0.0, 0.0), (2, 1, 1))
    np.testing.assert_allclose(run(model, x), np.clip(alpha * exact + 0.5, 0, 1), atol=0.51 / 255)


def test_gates_that_never_reach_1_keep_their_finer_steps():
    model = applied(integer_hard_sigmoid, _gated(bias=None, highest=0.6))
    x = np.float32([[8.0, 0.0]]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(run(model, x).ravel(), [0.6, 0.5], atol=0.51 * 0.6 / 255)


def test_a_bias_that_would_not_fit_into_int32_leaves_the_hard_sigmoid_as_it_is():
    model = applied(integer_hard_sigmoid, _gated(bias=(0.0, 0.0), weight=(0.5, 1e-9)))
    assert "HardSigmoid" in [node.op_type for node in model.graph.node]


def _read_after_a_hard_sigmoid(*nodes):
    """`g` is what the convolution makes now on one grid, which is read on another as `y`; then follow the nodes."""
    model = _gated(bias=None)
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    return onnx.shape_inference.infer_shapes(model)


def _both(model, *steps):
    own = PairedGraph(with_unsigned_activations(model))
    for step in (integer_hard_sigmoid, *steps):
        step(own)
    found = own.finish()
    onnx.checker.check_model(found, full_check=True)
    assert _count(found, "HardSigmoid") < _count(model, "HardSigmoid")
    x = (np.random.default_rng(0).integers(-127, 128, (64, 2, 1, 1)) * (4 / 127)).astype(np.float32)
    return run(found, x), run(model, x, as_written=True)


def _count(model, operator):
    return [node.op_type for node in model.graph.node].count(operator)


def test_a_hard_sigmoid_that_a_convolution_computes_keeps_its_grid_in_a_concatenation():
    model = _read_after_a_hard_sigmoid(
        helper.make_node("Relu", ["a"], ["r"]),
        *pair("r", "s", "in"),
        helper.make_node("Concat", ["y", "s"], ["cat"], axis=1),
        *pair("cat", "z", "in"),
    )
    found, expected = _both(model, shared_grids)
    # Both are rounded to the last grid; the graph as written also to those before and behind the hard-sigmoid.
    np.testing.assert_allclose(found, expected, atol=1.5 * 4 / 127)


@pytest.mark.parametrize(("gate", "step"), [("HardSigmoid", integer_hard_sigmoid), ("HardSwish", integer_hard_swish)])
def test_a_gate_behind_a_hard_sigmoid_does_not_move_the_grid_that_the_hard_sigmoid_is(gate, step):
    # The second one's grid would reach below 0, or above 1.
    model = _read_after_a_hard_sigmoid(helper.make_node(gate, ["y"], ["t"]), *pair("t", "z", "out"))
    found, expected = _both(model, step)
    np.testing.assert_allclose(found, expected, atol=3 / 127)


def test_onnx_runtime_computes_a_silu_in_integers(tmp_path):
    nodes = [
        *pair("x", "a", "in"),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["h"]),
        *pair("h", "y", "out"),
    ]
    model = applied(integer_silu, model_of(nodes, grids(**{"in": 6 / 127, "out": 6 / 127}), shape=("n", 8)))
    found = fused(model, tmp_path)
    assert found == dict.fromkeys(("QuantizeLinear", "QLinearSigmoid", "QLinearMul", "DequantizeLinear"), 1)
    step, zero = _scales(model, "y")
    assert zero == 12 and step == pytest.approx(6 / 243)  # 255 * 0.2785 / 6.2785 is 11.3
    x = ((np.arange(-127, 121)) * np.float32(6 / 127)).astype(np.float32).reshape(-1, 8)
    allowed = 0.5001 * step + np.abs(x) * 0.5001 / 255
    assert (np.abs(run(model, x) - _silu(x.astype(np.float64))) <= allowed).all()
