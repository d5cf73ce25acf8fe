"""Which operators float16 cannot compute: by the values that they meet on images, and the sums inside them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model
from onnx import helper

from edgekd.export.ranges import HIGHEST, SAFE_SHARE, Beyond, Kept, beyond_float16, named

LIMIT = HIGHEST * SAFE_SHARE


def found(graph, inputs):
    return {(each.node, each.what): each.value for each in beyond_float16(named(graph), inputs)}


def full(value, *shape):
    return np.full(shape, value, np.float32)


def test_the_operators_around_a_large_value_and_no_others():
    nodes = [
        helper.make_node("Mul", ["x", "up"], ["big"], "grow"),
        helper.make_node("Relu", ["big"], ["positive"], "relu"),
        helper.make_node("Mul", ["positive", "down"], ["small"], "shrink"),
        helper.make_node("Neg", ["small"], ["y"], "neg"),
    ]
    graph = model(nodes, constants={"up": np.float32(1e6), "down": np.float32(1e-6)}, shape=("batch", 4))
    assert found(graph, full(2.8, 3, 4)) == {
        ("grow", "an output up to"): pytest.approx(2.8e6),
        ("relu", "an output up to"): pytest.approx(2.8e6),
        ("shrink", "an input up to"): pytest.approx(2.8e6),
    }
    # The constant alone does not fit.
    assert found(graph, full(0.0, 1, 4)) == {("grow", "a constant up to"): 1e6}


@pytest.mark.parametrize(("value", "kept"), [(LIMIT, 0), (-LIMIT, 0), (1.01 * LIMIT, 1), (-1.01 * LIMIT, 1)])
def test_a_quarter_of_the_range_is_safe_on_any_image(value, kept):
    graph = model([helper.make_node("Relu", ["x"], ["y"])], shape=("batch", 2))
    inputs = np.zeros((100, 2), np.float32)
    inputs[66, 1] = value
    assert len(found(graph, inputs)) == kept


def test_values_that_are_no_numbers_are_kept_and_infinite_constants_are_not():
    graph = model([helper.make_node("Sqrt", ["x"], ["y"], "root")], shape=("batch", 2))
    assert [what for _, what in found(graph, full(-1.0, 1, 2))] == ["an output up to"]
    graph = model([helper.make_node("Min", ["x", "top"], ["y"])], constants={"top": np.float32(np.inf)}, shape=("b", 2))
    assert not found(graph, full(1.0, 1, 2))
    graph = model([helper.make_node("Clip", ["x", "", "top"], ["y"])], constants={"top": np.float32(3e38)})
    assert not found(graph, full(1.0, 1, 16, 8, 8))


def test_weights_too_large_or_all_of_them_too_small():
    def layer(weight):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
        return model(nodes, constants={"w": np.float32(weight).reshape(2, 1)}, shape=("batch", 2))

    assert found(layer([7e4, 0.0]), full(1e-3, 1, 2)) == {("layer", "weights up to"): 7e4}
    assert found(layer([6e4, 0.0]), full(1e-3, 1, 2)) == {}
    assert found(layer([1e-6, -5e-5]), full(1.0, 1, 2)) == {("layer", "weights of at most"): pytest.approx(5e-5)}
    # Tiny weights beside others, and a layer of zeros, do not count.
    assert found(layer([1e-6, 1.0]), full(1.0, 1, 2)) == {} == found(layer([0.0, 0.0]), full(1.0, 1, 2))


# Each adds or averages to something small, of which the sum by hand is beyond: 64 values of 300, 16 channels.
SUMS = {
    "Conv": ({"w": np.float32([[1.0], [-1.0]] * 8).reshape(1, 16, 1, 1) * 9}, {}, 16 * 300 * 9),
    "GlobalAveragePool": ({}, {}, 64 * 300),
    "AveragePool": ({}, {"kernel_shape": [8, 8]}, 64 * 300),
    "ReduceMean": ({}, {"axes": [2, 3]}, 64 * 300),
    "ReduceSum": ({"axes": np.array([1, 2, 3])}, {}, 1024 * 300),
    "ReduceL2": ({}, {"axes": [1]}, 16 * 300**2),
    "LayerNormalization": ({"scale": np.ones(8, np.float32)}, {"axis": -1}, 8 * 300**2),
    "InstanceNormalization": ({"s": np.ones(16, np.float32), "b": np.ones(16, np.float32)}, {}, 64 * 300**2),
}


@pytest.mark.parametrize("operator", SUMS)
def test_the_sum_inside_an_operator(operator):
    constants, attributes, expected = SUMS[operator]
    nodes = [helper.make_node(operator, ["x", *constants], ["y"], "adds", **attributes)]
    # Half of the values are negative: the sums cancel, and no output or input is large.
    inputs = full(300.0, 2, 16, 8, 8)
    inputs[..., ::2] *= -1
    graph = model(nodes, constants=constants)
    assert found(graph, inputs) == {("adds", "a sum up to"): pytest.approx(expected)}
    assert found(graph, inputs / 100) == {}


def test_gemm_adds_its_bias():
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer", alpha=-2.0, beta=-1.0)]
    constants = {"w": np.float32([[8000.0], [-8000.0]]), "b": np.float32([-5000.0])}
    graph = model(nodes, constants=constants, shape=("batch", 2))
    assert found(graph, full(1.0, 1, 2)) == {("layer", "a sum up to"): 2 * 16_000 + 5_000}


def test_a_graph_without_names_gets_them_and_stays_as_it_was():
    graph = model([helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Relu", ["z"], ["y"], "Relu_0")])
    before = graph.SerializeToString()
    assert [node.name for node in named(graph).graph.node] == ["Relu_0_", "Relu_0"]
    assert graph.SerializeToString() == before
    onnx.checker.check_model(named(graph), full_check=True)


def test_what_is_kept_is_said_with_its_values():
    kept = Kept((Beyond("n", "conv1 (Conv)", "an output up to", 2.8e6),), 41)
    assert Kept.from_facts(kept.facts) == kept
    assert kept.lines == [
        "1 operator of 41 in float32, since float16 ends at 65,504: conv1 (Conv), an output up to 2.8e+06"
    ]
    many = Kept((*kept.operators, *[Beyond("m", "relu (Relu)", "an input up to", 2e5)] * 4), 41)
    assert many.lines[0].startswith("5 operators of 41 in float32") and many.lines[0].endswith("; and 1 more")
    assert Kept((), 41).lines == []
