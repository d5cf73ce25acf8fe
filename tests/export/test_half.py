"""Graphs in float16 as a GPU computes them: evaluated in NumPy, in the types that the graph states."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel as OrtGraph

from edgekd.export import legality
from edgekd.export.half import to_float16

RANDOM = np.random.default_rng(0)


def weights(*shape, scale=1.0):
    return (RANDOM.normal(size=shape) * scale).astype(np.float32)


def small_graph(first=1.0, last=1.0, *, ends_large=False):
    """Two convolutions with an addition, a mean and a linear layer; the values between are `first` times as large."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "c1"], ["a"], "add"),
        helper.make_node("Mul", ["a", "last"], ["m"], "scale"),
        helper.make_node("GlobalAveragePool", ["m"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "linear"),
    ]
    constants = {
        "w1": weights(8, 3, 3, 3, scale=first * 0.2),
        "b1": weights(8, scale=first * 0.1),
        "w2": weights(8, 8, 3, 3, scale=0.1),
        "last": np.float32(last),
        "w3": weights(8, 5, scale=1e7 if ends_large else 1.0),
    }
    return model(nodes, constants=constants, shape=("batch", 3, 8, 8))


def evaluated(graph, inputs):
    with np.errstate(all="ignore"):
        (logits,) = ReferenceEvaluator(graph).run(None, {"x": inputs})
    return logits


def kinds(graph):
    """The type of what each operator computes; casts are left out."""
    typed = {info.name: info.type.tensor_type.elem_type for info in (*graph.graph.value_info, *graph.graph.output)}
    return {node.name: typed[node.output[0]] for node in graph.graph.node if node.op_type != "Cast"}


@pytest.fixture
def images():
    return weights(16, 3, 8, 8)


def test_values_beyond_float16_are_computed_in_float32_and_the_rest_is_not(images):
    graph = small_graph(first=3e6, last=1 / 3e6)
    expected = evaluated(graph, images)
    # What is wrong without it: a processor that computes in float16 meets infinities.
    plain = OrtGraph(convert_float_to_float16(graph, keep_io_types=True))
    plain.topological_sort()
    assert not np.isfinite(evaluated(plain.model, images)).any()
    half, kept = to_float16(graph, images)
    assert {each.node for each in kept.operators} == {"conv1", "relu1", "conv2", "add", "scale"} and kept.of == 8
    assert max(each.value for each in kept.operators) > 1e6
    onnx.checker.check_model(half, full_check=True)
    assert np.abs(evaluated(half, images) - expected).max() < 2e-3 * np.abs(expected).max()
    found = kinds(half)
    assert {found[name] for name in ("conv1", "relu1", "conv2", "add", "scale")} == {TensorProto.FLOAT}
    assert {found[name] for name in ("pool", "flatten", "linear")} == {TensorProto.FLOAT16}
    # One cast where the types change, and the one of the output.
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    for version in legality.VERSIONS:
        assert legality.check(half, version).legal


def test_a_usual_network_is_in_float16_throughout(images):
    graph = small_graph()
    half, kept = to_float16(graph, images)
    assert kept.operators == () and set(kinds(half).values()) == {TensorProto.FLOAT16}
    assert np.abs(evaluated(half, images) - evaluated(graph, images)).max() < 1e-2


def test_a_large_output_leaves_the_graph_in_float32(images):
    graph = small_graph(ends_large=True)
    expected = evaluated(graph, images)
    half, kept = to_float16(graph, images)
    assert [each.node for each in kept.operators] == ["linear"]
    assert np.abs(expected).max() > 65504
    assert np.abs(evaluated(half, images) - expected).max() < 1e-2 * np.abs(expected).max()
    assert [info.name for info in half.graph.output] == ["y"]


def test_a_large_input_enters_in_float32():
    images = weights(16, 3, 8, 8, scale=1e6)
    graph = small_graph(first=1e-6)
    half, kept = to_float16(graph, images)
    assert [(each.node, each.what) for each in kept.operators] == [("conv1", "an input up to")]
    expected = evaluated(graph, images)
    assert np.abs(evaluated(half, images) - expected).max() < 1e-2 * np.abs(expected).max()


def test_a_mean_whose_sum_is_beyond_float16(images):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], "mean", axes=[2, 3], keepdims=0)]
    graph = model(nodes, shape=("batch", 3, 8, 8))
    inputs = np.full((1, 3, 8, 8), 2000.0, np.float32)
    half, kept = to_float16(graph, inputs)
    assert [each.node for each in kept.operators] == ["mean"] and kept.operators[0].value == 64 * 2000
    assert evaluated(half, inputs).tolist() == [[2000.0] * 3]
