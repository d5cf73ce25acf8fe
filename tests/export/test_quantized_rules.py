"""What TensorRT asks of quantizers, each rule on a graph that breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model, quantized, rules
from onnx import helper, numpy_helper

from edgekd.export import legality


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_zero": None}, "reads that as int8, ONNX Runtime as uint8"),
        ({"x_zero": np.zeros((), np.uint8)}, "the zero point is uint8"),
        ({"x_zero": np.int8(3)}, "not zero"),
        ({"zero": np.array([0] * 31 + [1], np.int8)}, "not zero"),
    ],
)
def test_zero_points_are_int8_zeros_written_out(change, message):
    findings = legality.check(quantized(**change), "10.3").findings
    assert {(found.level, found.rule) for found in findings} == {("error", "zero-point")}
    assert all(message in found.message for found in findings)


def test_zero_points_and_scales_are_constants():
    graph = quantized()
    graph.graph.node[0].input[1:] = ["x", "x"]
    assert rules(graph, level="error") == {"zero-point", "scale"}
    constant = quantized()
    kept = [tensor for tensor in constant.graph.initializer if tensor.name != "xs"]
    del constant.graph.initializer[:]
    constant.graph.initializer.extend(kept)
    constant.graph.node.insert(0, helper.make_node("Constant", [], ["xs"], value_float=0.1))
    assert rules(constant) == set()


@pytest.mark.parametrize("scale", [0.0, -0.1, np.inf, np.nan])
def test_scales_are_finite_and_positive(scale):
    assert rules(quantized(x_scale=np.float32(scale)), level="error") == {"scale"}


def test_half_precision_scales_need_opset_19_and_so_tensorrt_10():
    half = np.float16(0.1)
    assert rules(quantized(x_scale=half, opset=19), "10.3") == set()
    assert rules(quantized(x_scale=half, opset=17), "10.3", "error") == {"scale-type"}
    assert rules(quantized(x_scale=half, opset=19), "8.6", "error") == {"opset", "scale-type"}


@pytest.mark.parametrize(
    ("operator", "weight", "right", "attributes"),
    [
        ("Conv", (32, 16, 3, 3), 0, {}),
        ("ConvTranspose", (16, 32, 3, 3), 1, {}),
        ("Gemm", (16, 32), 1, {}),
        ("Gemm", (32, 16), 0, {"transB": 1}),
        ("MatMul", (16, 32), 1, {}),
    ],
)
def test_weights_have_their_scales_along_the_output_channels(operator, weight, right, attributes):
    assert rules(quantized(operator, weight, axis=right, **attributes)) == set()
    assert rules(quantized(operator, weight, axis=right - len(weight), **attributes)) == set()
    wrong = quantized(operator, weight, axis=1 - right, **attributes)
    assert rules(wrong, level="error") == {"per-channel"}


def test_a_float_weight_behind_a_whole_pair_and_a_transpose_counts_as_a_weight():
    constants = {"w": np.ones((32, 16), np.float32), "s": np.ones(32, np.float32), "z": np.zeros(32, np.int8)}

    def graph(axis):
        nodes = [
            helper.make_node("QuantizeLinear", ["w", "s", "z"], ["w8"], axis=axis),
            helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["wd"], axis=axis),
            helper.make_node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "wt"], ["y"]),
        ]
        return model(nodes, constants=constants, shape=("batch", 16))

    assert rules(graph(0)) == set()
    assert rules(graph(1), level="error") == {"per-channel"}


def test_activations_have_one_scale():
    graph = quantized(x_scale=np.full(16, 0.1, np.float32), x_zero=np.zeros(16, np.int8))
    assert rules(graph, level="error") == {"per-channel"}
    assert rules(quantized(x_scale=np.full(1, 0.1, np.float32))) == set()


def test_a_bias_stays_float():
    graph = quantized()
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones(32, np.int32), "b32"),
            numpy_helper.from_array(np.full(32, 0.01, np.float32), "bs"),
        ]
    )
    graph.graph.node.insert(0, helper.make_node("DequantizeLinear", ["b32", "bs"], ["bd"], "dqb", axis=0))
    graph.graph.node[-1].input.append("bd")
    assert [f.rule for f in legality.check(graph, "10.3").findings] == ["int32-bias"]


@pytest.mark.parametrize(
    ("weight", "attributes", "warned"),
    [
        ((32, 16, 1, 1), {}, False),
        ((8, 16, 1, 1), {}, True),
        ((33, 16, 1, 1), {}, True),
        ((32, 3, 1, 1), {}, True),
        ((16, 1, 1, 1), {"group": 16}, False),
    ],
)
def test_narrow_and_odd_quantized_convolutions_are_named(weight, attributes, warned):
    found = legality.check(quantized(weight=weight, **attributes), "10.3")
    assert found.legal and [f.rule for f in found.findings] == ["channels"] * warned


def test_a_quantizer_between_a_layer_and_its_relu_is_named():
    def graph(*order):
        nodes = quantized().graph.node[:]
        last = "y"
        for operator in order:
            if operator == "pair":
                nodes.append(helper.make_node("QuantizeLinear", [last, "xs", "xz"], [f"{last}q"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"{last}q", "xs", "xz"], [f"{last}d"]))
                last += "d"
            else:
                nodes.append(helper.make_node(operator, [last], [f"{last}{operator}"]))
                last += operator
        made = quantized()
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        return made

    assert rules(graph("pair", "Relu"), level="warning") == {"fusion"}
    assert rules(graph("Relu", "pair", "Sigmoid")) == set()
    assert rules(graph("pair", "Sigmoid")) == set()
