"""Converts a float32 graph to float16, except for the operators that float16 cannot compute."""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel as OrtGraph

from edgekd.export._scopes import attribute, scopes
from edgekd.export.ranges import Kept, beyond_float16, named
from edgekd.runtime.preprocess import Floats

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def to_float16(model: onnx.ModelProto, inputs: Floats) -> tuple[onnx.ModelProto, Kept]:
    """A float16 graph with float32 inputs and outputs.

    Operators beyond float16 on these images (see ranges.py), and what the converter has no float16 form of, stay in
    float32. A tensor is cast only where one of its producer and consumers computes in float16 and the other does not,
    so a value that float16 cannot hold passes through float32 alone.

    Args:
        model: in float32; it is not changed.
        inputs: (N, C, H, W).
    """
    own = named(model)
    found = beyond_float16(own, inputs)
    kept = Kept(tuple(found), sum(node.op_type != "Constant" for node in own.graph.node))
    half = OrtGraph(convert_float_to_float16(own, keep_io_types=True, node_block_list=[each.node for each in found]))
    _drop_detours(half.model.graph)
    half.topological_sort()  # the converter appends its casts at the end
    # The converter's value types are not those of the operators that it leaves alone.
    del half.model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(half.model, check_type=True, strict_mode=True), kept


def _drop_detours(graph: onnx.GraphProto) -> None:
    """Connect directly what the converter connects through float16, though both sides are in float32."""
    typed = {each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.value_info)}
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {each.name for each in graph.output}
    direct: dict[str, str] = {}
    for node in graph.node:
        first = makers.get(node.input[0]) if _casts_to(node, _FLOAT) else None
        if first is None or not _casts_to(first, _HALF) or typed.get(first.input[0]) != _FLOAT:
            continue
        direct[node.output[0]] = first.input[0]
        if node.output[0] in outputs:
            node.input[0] = first.input[0]  # a cast from float32 to float32, which keeps the output's name
    nodes = [node for scope in scopes(graph) for node in scope.graph.node]
    for node in nodes:
        node.input[:] = [direct.get(name, name) for name in node.input]
    used = outputs.union(*(node.input for node in nodes))
    # Twice: the second of two casts uses the first.
    for _ in range(2):
        for node in [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in used]:
            graph.node.remove(node)
        used = outputs.union(*(node.input for scope in scopes(graph) for node in scope.graph.node))


def _casts_to(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and attribute(node, "to") == kind
