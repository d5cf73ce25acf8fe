"""Which types of tensors each TensorRT version has, and where a graph has others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from edgekd.export._quantized_rules import DEQUANTIZE, QUANTIZE, Finding
from edgekd.export._scopes import Scope, attribute, of_onnx, scopes, title

_Version = tuple[int, int]
_Place = tuple[str, int]

# Not named by onnx 1.17.
_FLOAT8E8M0 = 24
_ALWAYS = (0, 0)
# The first version with tensors of each type, by the data types of its API; TensorRT reads double and int64 as float32
# and int32 where it has none. Those of 4 and 8 bits are in the API of 10.13, and not in that of 10.3.
_SINCE: dict[int, _Version] = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8), _ALWAYS),
    **dict.fromkeys((TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL), _ALWAYS),
    TensorProto.UINT8: (8, 5),
    TensorProto.BFLOAT16: (9, 0),
    TensorProto.FLOAT8E4M3FN: (10, 0),
    TensorProto.INT4: (10, 0),
    TensorProto.FLOAT4E2M1: (10, 13),
    _FLOAT8E8M0: (10, 13),
}
# Of no input of a network.
_INSIDE = frozenset((TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1, _FLOAT8E8M0))
_HINT = "compute in float32, and convert outside the graph"
# Shapes and axes are inferred from constants as small as these; of others the size is enough.
_LARGEST = 1024


def tensor_types(graph: onnx.ModelProto, version: _Version) -> Iterator[Finding]:
    """A finding for each tensor of a type that a TensorRT version does not have, with the same message for each type.

    Constants that only quantizers read, and what these compute, are judged by the rules of quantization.

    Args:
        graph: a model without local functions.
        version: of TensorRT.
    """
    for place, kind in _inputs(graph):
        if kind in _INSIDE:
            yield Finding("error", "tensor-type", place, f"{_name(kind)}: TensorRT has no inputs of this type", _HINT)
        elif (message := _refusal(kind, version)) is not None:
            yield Finding("error", "tensor-type", place, message, _HINT)
    for scope in scopes(_inferred(graph).graph):
        for place, kind in _places(scope):
            if kind and (message := _refusal(kind, version)) is not None:
                yield Finding("error", "tensor-type", place, message, _HINT)


def _refusal(kind: int, version: _Version) -> str | None:
    since = _SINCE.get(kind)
    if since is None:
        return f"{_name(kind)}: TensorRT has no tensors of this type"
    if since > version:
        return f"{_name(kind)}: TensorRT has tensors of this type only from {'.'.join(map(str, since))} on"
    return None


def _name(kind: int) -> str:
    if not kind:
        return "no tensor"
    known = kind in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(kind)).lower() if known else f"type {kind}"


def _inputs(graph: onnx.ModelProto) -> Iterator[_Place]:
    """Those of the network, which needs a type for each."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    for value in graph.graph.input:
        if value.name not in constants:
            yield f"{value.name} (input)", value.type.tensor_type.elem_type


def _places(scope: Scope) -> Iterator[_Place]:
    """Each tensor of a graph once, but for the network's inputs: where it is, and its type; 0 where it is unknown."""
    graph = scope.graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    outputs = {value.name for value in graph.output} if scope.outer is None else set()
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        if not _is_quantizers_own(scope, tensor.name) and not _is_converted(tensor.data_type):
            yield f"{tensor.name} (constant)", tensor.data_type
    for node in graph.node:
        if node.op_type == QUANTIZE and of_onnx(node):
            continue
        for name in filter(None, node.output):
            kind = _made_by(node) or known.get(name, 0)
            constant = node.op_type == "Constant"
            if constant and (_is_quantizers_own(scope, name) or _is_converted(kind)):
                continue
            yield (f"{name} (output)" if name in outputs else title(node)), kind
    for name in outputs & {value.name for value in graph.input}:
        yield f"{name} (output)", known[name]


def _is_quantizers_own(scope: Scope, name: str) -> bool:
    readers = scope.consumers[name]
    return bool(readers) and all(node.op_type in (QUANTIZE, DEQUANTIZE) for node, _ in readers)


def _is_converted(kind: int) -> bool:
    """Constants of these types are read as int32 by versions that have no such tensors."""
    return kind == TensorProto.UINT8


def _made_by(node: onnx.NodeProto) -> int:
    """The type that a node itself says; 0 for others."""
    if not of_onnx(node):
        return 0
    if node.op_type == "Cast":
        return int(attribute(node, "to", 0))
    if node.op_type != "Constant":
        return 0
    for held in node.attribute:
        if held.name == "value":
            return int(held.t.data_type)
        if held.name == "sparse_value":
            return int(held.sparse_tensor.values.data_type)
        if held.name in ("value_string", "value_strings"):
            return TensorProto.STRING
    return 0


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types that ONNX infers, without its large constants' values; as it is where that fails."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, name).extend(getattr(model.graph, name))
    light.graph.name = model.graph.name
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _LARGEST:
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            light.graph.initializer.append(tensor)
    try:
        return onnx.shape_inference.infer_shapes(light)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return light  # the types that the graph itself states are checked
