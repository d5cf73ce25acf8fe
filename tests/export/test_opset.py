"""The same computation in an older opset, proven by running both."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ExportError, UsageError
from edgekd.export import legality
from edgekd.export.onnx import graph_of
from edgekd.export.opset import lower
from edgekd.runtime.preprocess import InputShape


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})


def model(
    nodes, *, opset=20, constants=None, shape=("batch", 7, 6), dtype=TensorProto.FLOAT, **more
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("input", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, None) for name in nodes[-1].output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10, **more)
    made = onnx.shape_inference.infer_shapes(made)
    for output in made.graph.output:
        if not output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.shape.dim.add()
    return made


def check_same(graph: onnx.ModelProto, shape=(3, 7, 6)) -> onnx.ModelProto:
    """Lower it; the result is opset 17 in a format of its time, and gives the same numbers to the last bit."""
    before = graph.SerializeToString()
    lowered = lower(graph)
    assert graph.SerializeToString() == before
    assert [(entry.domain, entry.version) for entry in lowered.opset_import] == [("", 17)] and lowered.ir_version == 8
    onnx.checker.check_model(lowered, full_check=True)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for old, new in zip(run(graph, x), run(lowered, x), strict=True):
        np.testing.assert_array_equal(new, old)
    return lowered


@pytest.mark.parametrize("name", ["mobilenet_v3_small", pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.slow)])
def test_what_the_exporter_writes_becomes_legal_for_tensorrt_8(name):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, num_classes=10).eval()
    graph = graph_of(network, InputShape(3, 32, 32), 20)
    assert not legality.check(graph, "8.6").legal
    verdict = legality.check(check_same(graph, (3, 3, 32, 32)), "8.6")
    assert verdict.legal and verdict.findings == ()


@pytest.mark.parametrize("name", ["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"])
def test_axes_of_reductions_become_attributes_and_their_constants_go(name):
    nodes = [helper.make_node(f"Reduce{name}", ["input", "axes"], ["y"], keepdims=0, noop_with_empty_axes=0)]
    lowered = check_same(model(nodes, constants={"axes": np.array([1, -1])}))
    assert not lowered.graph.initializer and not run(lowered, np.ones((2, 7, 6), np.float32))[0].shape[1:]
    whole = check_same(model([helper.make_node(f"Reduce{name}", ["input"], ["y"])]))
    assert not [held.name for held in whole.graph.node[0].attribute]


def test_a_constant_that_others_read_stays():
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"]),
        helper.make_node("ReduceSum", ["mean", "axes"], ["y"]),
    ]
    assert [node.op_type for node in check_same(model(nodes)).graph.node] == ["Constant", "ReduceMean", "ReduceSum"]


@pytest.mark.parametrize(("axis", "parts"), [(1, 7), (2, 3), (1, 3), (-1, 4), (2, 5)])
def test_splits_keep_their_sizes(axis, parts):
    names = [f"y{i}" for i in range(parts)]
    graph = model([helper.make_node("Split", ["input"], names, axis=axis, num_outputs=parts)])
    if (axis, parts) in {(-1, 4), (2, 5)}:
        # 6 in parts of 2 leaves nothing for the last.
        with pytest.raises(ExportError, match="y0 .Split. cannot be written"):
            lower(graph)
    else:
        check_same(graph)


def test_attributes_at_their_defaults_are_dropped():
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"], saturate=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], block_size=0),
        helper.make_node("Pad", ["d", "pads", "", ""], ["p"], mode="reflect"),
        helper.make_node("AveragePool", ["p"], ["a"], kernel_shape=[2], dilations=[1], ceil_mode=0),
        helper.make_node("Cast", ["a"], ["c"], to=TensorProto.FLOAT, saturate=1),
        helper.make_node("Resize", ["c", "", "scales"], ["y"], antialias=0, keep_aspect_ratio_policy="stretch"),
    ]
    constants = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "pads": np.array([0, 0, 1, 0, 0, 1]),
        "scales": np.array([1, 1, 2], np.float32),
    }
    lowered = check_same(model(nodes, opset=21, constants=constants))
    kept = {held.name for node in lowered.graph.node for held in node.attribute}
    assert kept == {"mode", "kernel_shape", "to"}


def test_the_type_that_a_zero_point_repeats_is_dropped():
    nodes = [helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"], output_dtype=TensorProto.INT8)]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    lowered = lower(model(nodes, opset=21, constants={"s": np.float32(0.1), "z": np.int8(0)}))
    assert not lowered.graph.node[0].attribute
    del nodes[0].input[2:]
    with pytest.raises(ExportError, match="q .QuantizeLinear. cannot be written"):
        lower(model(nodes, opset=21, constants={"s": np.float32(0.1), "z": np.int8(0)}))


def test_graphs_inside_and_functions_of_the_model_are_lowered_too():
    value = helper.make_tensor_value_info("m", TensorProto.FLOAT, ("batch", 1, 6))
    body = helper.make_graph([helper.make_node("ReduceMean", ["input", "axes"], ["m"])], "branch", [], [value])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    lowered = check_same(model([node], constants={"yes": np.array(True), "axes": np.array([1])}))
    assert [tensor.name for tensor in lowered.graph.initializer] == ["yes"]
    inner = [helper.make_node("ReduceMax", ["a"], ["b"])]
    function = helper.make_function("mine", "Top", ["a"], ["b"], inner, [helper.make_opsetid("", 20)])
    check_same(model([helper.make_node("Top", ["input"], ["y"], domain="mine")], functions=[function]))


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("Gelu", ["input"], ["y"]), "opset 17 does not have it"),
        (helper.make_node("ReduceMean", ["input", "moving"], ["y"]), "computed, not constant"),
        (helper.make_node("ReduceMean", ["input"], ["y"], noop_with_empty_axes=1), "reduces nothing"),
        (helper.make_node("Pad", ["input", "axes", "", "axes"], ["y"]), "pads some axes only"),
        (helper.make_node("Pad", ["input", "axes"], ["y"], mode="wrap"), "mode is wrap"),
        (helper.make_node("AveragePool", ["input"], ["y"], kernel_shape=[2], dilations=[2]), "dilations"),
        (helper.make_node("Resize", ["input", "", "axes"], ["y"], antialias=1), "antialias is 1"),
        (helper.make_node("Resize", ["input", "", "axes"], ["y"], axes=[2]), "axes is"),
        (helper.make_node("GridSample", ["input", "input"], ["y"]), "version 20 of it is not known"),
        (helper.make_node("Split", ["input"], ["y", "y2"], axis=0, num_outputs=2), "size of its input"),
        (helper.make_node("Fast", ["input"], ["y"], domain="mine"), "an operator of mine"),
    ],
)
def test_what_is_not_known_to_be_exact_is_refused_by_name(node, reason):
    nodes = [helper.make_node("Shape", ["input"], ["moving"]), node]
    with pytest.raises(ExportError, match=rf"y \({node.op_type}\) cannot be written in opset 17") as caught:
        lower(model(nodes, constants={"axes": np.array([1, 2])}))
    assert reason in str(caught.value.found)


def test_types_that_the_older_opset_lacks_are_refused():
    nodes = [helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    graph = model(nodes, constants={"s": np.float16(0.1), "z": np.int8(0)}, dtype=TensorProto.FLOAT16)
    onnx.checker.check_model(graph, full_check=True)
    with pytest.raises(ExportError, match="not valid in the older opset 17"):
        lower(graph)


def test_a_graph_that_was_never_valid_is_called_that():
    graph = model([helper.make_node("Relu", ["nowhere"], ["y"])])
    with pytest.raises(ExportError, match="not valid in its own opset 20"):
        lower(graph)


def test_only_downwards_and_not_past_what_was_read():
    relu = [helper.make_node("Relu", ["input"], ["y"])]
    same = lower(model(relu, opset=17))
    assert same.opset_import[0].version == 17
    assert lower(model(relu, opset=20), 19).opset_import[0].version == 19
    for source, wanted in ((17, 18), (20, 16), (26, 17)):
        with pytest.raises(UsageError, match="cannot be converted"):
            lower(model(relu, opset=source), wanted)
