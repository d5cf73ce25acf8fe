"""TensorRT's rules for explicit quantization: one generator per rule, applied to each Q or DQ node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto

from edgekd.export._scopes import Scope, attribute, title

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FUSED = ("Relu", "Clip", "BatchNormalization")
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_NARROW = (TensorProto.FLOAT8E4M3FN, TensorProto.INT4)
_FEWEST_CHANNELS = 16


@dataclass(frozen=True)
class Finding:
    """Something that a TensorRT version refuses (error), or that costs speed or is uncertain (warning).

    Attributes:
        rule: the rule's name in docs/check.md.
        node: name and operator; "" for the whole graph.
    """

    level: Literal["error", "warning"]
    rule: str
    node: str
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Target:
    """What a graph is checked for: a TensorRT version, its major number, and the graph's opset."""

    version: str
    major: int
    opset: int


Rule = Callable[[Scope, onnx.NodeProto, Target], Iterator[Finding]]


def zero_point(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """The zero point must be a constant of int8 zeros."""
    if _dequantizes_int32(scope, node):
        return
    hint = "give it a constant zero point of int8 zeros"
    if len(node.input) < 3 or not node.input[2]:
        message = "no zero point: TensorRT reads that as int8, ONNX Runtime as uint8"
        yield Finding("error", "zero-point", title(node), message, hint)
        return
    tensor = scope.tensor(node.input[2])
    if tensor is None:
        yield Finding("error", "zero-point", title(node), "the zero point is not a constant", hint)
    elif tensor.data_type in _NARROW and target.major >= 10:
        message = f"zero point {_type(tensor)} is not checked, only int8 is"
        yield Finding("warning", "zero-point", title(node), message)
    elif tensor.data_type != TensorProto.INT8:
        message = f"the zero point is {_type(tensor)}: TensorRT quantizes to int8"
        yield Finding("error", "zero-point", title(node), message, "quantize symmetrically to int8")
    elif np.any(onnx.numpy_helper.to_array(tensor)):
        message = "the zero point is not zero: TensorRT quantizes symmetrically only"
        yield Finding("error", "zero-point", title(node), message, "quantize symmetrically to int8")


def scale(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """The scale must be constant, finite and larger than zero."""
    values = scope.constant(node.input[1])
    if values is None:
        yield Finding("error", "scale", title(node), "the scale is not a constant", "quantize with static scales")
        return
    numbers = values.astype(np.float32)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        hint = "give a channel of zeros a small positive scale"
        yield Finding("error", "scale", title(node), "a scale is not a finite number above zero", hint)


def scale_type(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """Half-precision scales need opset 19, which TensorRT 8 cannot parse."""
    tensor = scope.tensor(node.input[1])
    if tensor is None or tensor.data_type not in _HALF:
        return
    if target.opset < 19 or target.major == 8:
        message = f"{_type(tensor)} scales need opset 19, and therefore TensorRT 10"
        yield Finding("error", "scale-type", title(node), message, "write the scales in float32")


def int32_bias(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    if _dequantizes_int32(scope, node):
        message = "dequantizes an int32 bias: TensorRT requires a float bias"
        yield Finding(
            "error", "int32-bias", title(node), message, "keep the bias in float (ONNX Runtime: QuantizeBias=False)"
        )


def stored_weight(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """Weights stored in int8 are documented for current TensorRT; for version 8 this was neither read nor tried."""
    tensor = scope.tensor(node.input[0])
    if target.major == 8 and node.op_type == DEQUANTIZE and tensor is not None and tensor.data_type == TensorProto.INT8:
        message = "an int8 constant with only a DequantizeLinear: it is not known whether TensorRT 8 accepts that"
        hint = "keep the weight in float, followed by QuantizeLinear and DequantizeLinear"
        yield Finding("warning", "stored-weight", title(node), message, hint)


def per_channel(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """Several scales are allowed only for weights, along the output channels."""
    tensor = scope.tensor(node.input[1])
    if tensor is None or int(np.prod(tensor.dims)) <= 1 or _dequantizes_int32(scope, node):
        return
    weight = _weight(scope, node)
    if weight is None:
        message = "one scale per channel of an activation: TensorRT supports that only for weights"
        yield Finding("error", "per-channel", title(node), message, "use one scale for the whole tensor")
        return
    if len(tensor.dims) != 1:
        message = "block-wise scales are not checked"
        yield Finding("error" if target.major == 8 else "warning", "per-channel", title(node), message)
        return
    rank = len(weight.dims)
    axis = int(attribute(node, "axis", 1)) % max(rank, 1)
    wanted = set(_channel_axes(scope, node, axis, rank))
    if not wanted:
        message = "one scale per channel of a constant that is not a weight of a convolution or matrix product"
        yield Finding("warning", "per-channel", title(node), message)
    elif wanted != {True}:
        message = "the scales are not along the output channels"
        yield Finding("error", "per-channel", title(node), message, _AXES)


_AXES = "axis 0 of Conv and of Gemm with transB, axis 1 of ConvTranspose, the last axis of other weights"


def between(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """A quantizer between a layer and its ReLU prevents their fusion into one kernel."""
    if node.op_type != QUANTIZE:
        return
    before = scope.producer(node.input[0])
    if before is None or before.op_type not in (*WEIGHTED, "BatchNormalization"):
        return
    readers = [reader for twin, _ in scope.consumers[node.output[0]] for reader, _ in scope.consumers[twin.output[0]]]
    if readers and all(reader.op_type in _FUSED for reader in readers):
        message = "is between a layer and its activation, which prevents their fusion"
        yield Finding("warning", "fusion", title(node), message, "quantize after the activation")


NODE_RULES: tuple[Rule, ...] = (zero_point, scale, scale_type, int32_bias, stored_weight, per_channel, between)


def channels(scope: Scope, node: onnx.NodeProto, target: Target) -> Iterator[Finding]:
    """Convolutions that TensorRT computes in fp16 or fp32 although their weights are quantized."""
    behind = scope.producer(node.input[1])
    weight = _weight(scope, behind) if behind is not None and behind.op_type == DEQUANTIZE else None
    if weight is None or len(weight.dims) < 2:
        return
    groups = int(attribute(node, "group", 1))
    first, second = weight.dims[0], weight.dims[1] * groups
    came, left = (second, first) if node.op_type == "Conv" else (first, second)
    if min(came, left) < _FEWEST_CHANNELS or came % 2 or left % 2:
        message = f"quantized, with fewer than {_FEWEST_CHANNELS} or an odd number of channels: stays in fp16 or fp32"
        where = title(node, f", {came} to {left} channels")
        yield Finding(
            "warning",
            "channels",
            where,
            message,
            "widths of multiples of 16 run in int8: take a wider network, or set prune.multiple: 16",
        )


def _weight(scope: Scope, node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The constant that a Q or DQ node works on, directly or through the other node of its pair."""
    tensor = scope.tensor(node.input[0])
    before = scope.producer(node.input[0])
    if tensor is None and node.op_type == DEQUANTIZE and before is not None and before.op_type == QUANTIZE:
        return scope.tensor(before.input[0])
    return tensor


def _channel_axes(scope: Scope, node: onnx.NodeProto, axis: int, rank: int) -> Iterator[bool]:
    """For each weighted layer that reads the quantized constant: whether `axis` is its output channels."""
    for reader, place in scope.consumers[node.output[0]]:
        if reader.op_type == DEQUANTIZE:
            yield from _channel_axes(scope, reader, axis, rank)
        elif reader.op_type == "Transpose":
            order = list(attribute(reader, "perm", range(rank - 1, -1, -1)))
            yield from _channel_axes(scope, reader, order.index(axis), rank)
        elif reader.op_type in WEIGHTED and place <= 1:
            yield axis == _output_axis(reader, place, rank)


def _output_axis(layer: onnx.NodeProto, place: int, rank: int) -> int:
    if layer.op_type in ("Conv", "ConvTranspose"):
        return 0 if layer.op_type == "Conv" else 1
    if place == 0:
        return 1 if attribute(layer, "transA", 0) else max(rank - 2, 0)
    return 0 if attribute(layer, "transB", 0) else rank - 1


def _dequantizes_int32(scope: Scope, node: onnx.NodeProto) -> bool:
    tensor = scope.tensor(node.input[0])
    return node.op_type == DEQUANTIZE and tensor is not None and tensor.data_type == TensorProto.INT32


def _type(tensor: onnx.TensorProto) -> str:
    return str(TensorProto.DataType.Name(tensor.data_type)).lower()
