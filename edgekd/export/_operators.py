"""Quantize and dequantize as custom operators: opaque to torch.export, one ONNX node each.

In plain PyTorch they would be exported as multiplications, roundings and casts, which engines do not recognise as
quantization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir, opset18
from torch import Tensor

from edgekd.quantization.quantizers import HIGHEST, LOWEST

# Typed as Any: its annotations are for compiled scripts, while traced functions also pass plain numbers.
_onnx: Any = opset18


@torch.library.custom_op("edgekd::quantize_per_tensor", mutates_args=())
def quantize_per_tensor(values: Tensor, scale: float) -> Tensor:
    """The int8 steps of float32 values of any shape; zero point 0.

    The scale is a Python float, because a tensor would be exported as data, not as a constant of the graph.
    """
    # Multiplies by the reciprocal, as fake quantization does in training: a division may round ties differently.
    return torch.clamp(torch.round(values * (1.0 / scale)), LOWEST, HIGHEST).to(torch.int8)


@torch.library.custom_op("edgekd::dequantize_per_tensor", mutates_args=())
def dequantize_per_tensor(steps: Tensor, scale: float) -> Tensor:
    """The float32 values of int8 steps of any shape; zero point 0."""
    return steps.to(torch.float32) * scale


@torch.library.custom_op("edgekd::dequantize_per_channel", mutates_args=())
def dequantize_per_channel(steps: Tensor, scale: Tensor, zero_points: Tensor, axis: int) -> Tensor:
    """The float32 values of int8 steps with one scale per channel.

    Args:
        steps: (…, channels, …) int8.
        scale: (channels,) float32.
        zero_points: (channels,) int8.
        axis: of the channels in `steps`.
    """
    shape = [1] * steps.ndim
    shape[axis] = -1
    return (steps.to(torch.float32) - zero_points.reshape(shape)) * scale.reshape(shape)


@quantize_per_tensor.register_fake
def _(values: Tensor, scale: float) -> Tensor:
    return torch.empty_like(values, dtype=torch.int8)


@dequantize_per_tensor.register_fake
def _(steps: Tensor, scale: float) -> Tensor:
    return torch.empty_like(steps, dtype=torch.float32)


@dequantize_per_channel.register_fake
def _(steps: Tensor, scale: Tensor, zero_points: Tensor, axis: int) -> Tensor:
    return torch.empty_like(steps, dtype=torch.float32)


def _onnx_quantize_per_tensor(values: Any, scale: float) -> Any:
    return _onnx.QuantizeLinear(values, scale, _zero())


def _onnx_dequantize_per_tensor(steps: Any, scale: float) -> Any:
    return _onnx.DequantizeLinear(steps, scale, _zero())


def _onnx_dequantize_per_channel(steps: Any, scale: Any, zero_points: Any, axis: int) -> Any:
    return _onnx.DequantizeLinear(steps, scale, zero_points, axis=axis)


def _zero() -> Any:
    return _onnx.Constant(value=ir.tensor(0, dtype=ir.DataType.INT8))


# The `custom_translation_table` of torch.onnx.export.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.edgekd.quantize_per_tensor.default: _onnx_quantize_per_tensor,
    torch.ops.edgekd.dequantize_per_tensor.default: _onnx_dequantize_per_tensor,
    torch.ops.edgekd.dequantize_per_channel.default: _onnx_dequantize_per_channel,
}
