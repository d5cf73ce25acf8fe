"""Prepares a network with quantizers for export: explicit Q/DQ pairs, int8 weights, constant scales, zero points 0."""

from __future__ import annotations

import copy
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError
from edgekd.export._operators import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor
from edgekd.quantization.operations import is_identity
from edgekd.quantization.placement import activation_quantizers, grids
from edgekd.quantization.quantizers import HIGHEST, LOWEST, WeightQuantizer

# Names under torch's parametrization, and the names in the exported graph.
_GRAPH_NAMES = {
    ".parametrizations.weight.original": ".weight",
    ".parametrizations.weight.0.scale": ".weight_scale",
    ".parametrizations.weight.0.zero_points": ".weight_zero_points",
}


def with_constant_scales(network: nn.Module) -> fx.GraphModule:
    """A copy for export, in eval mode on the CPU, whose quantizers are Q/DQ pairs with constant scales.

    Operations that only move values are followed by the pair of their input, so that engines keep them in int8.

    Raises:
        ModelError: the network has no quantizers, or one of them has seen no values.
    """
    if not isinstance(network, fx.GraphModule) or not activation_quantizers(network):
        raise ModelError(
            f"{type(network).__name__} has no quantizers, so it cannot be exported in int8",
            hint="quantize the checkpoint first: a quantize section in the recipe, or `edgekd quantize`",
        )
    own = copy.deepcopy(network).eval().cpu()
    _repeat_behind_moves(own)
    for path, quantizer in activation_quantizers(own).items():
        quantizer.freeze()
        own.set_submodule(path, _ConstantPair(float(quantizer.scale)))
    for layer in own.modules():
        if parametrize.is_parametrized(layer, "weight"):
            _store_int8(layer)
    return own


def rename_weights(graph: onnx.ModelProto) -> None:
    """Rename a graph's int8 weights, in place, to their names in the network."""
    for node in graph.graph.node:
        node.input[:] = [_graph_name(name) for name in node.input]
    for tensor in graph.graph.initializer:
        tensor.name = _graph_name(tensor.name)


def _graph_name(name: str) -> str:
    for held, written in _GRAPH_NAMES.items():
        name = name.replace(held, written)
    return name


class _ConstantPair(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = dequantize_per_tensor(quantize_per_tensor(values, self.scale), self.scale)
        return result


class _Stored(nn.Module):
    """Dequantizes an int8 weight."""

    scale: Tensor
    zero_points: Tensor

    def __init__(self, scale: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("scale", scale)
        self.register_buffer("zero_points", torch.zeros_like(scale, dtype=torch.int8))

    def forward(self, steps: Tensor) -> Tensor:
        weight: Tensor = dequantize_per_channel(steps, self.scale, self.zero_points, self.axis)
        return weight


@torch.no_grad()
def _store_int8(layer: nn.Module) -> None:
    held: Any = layer.parametrizations["weight"]  # type: ignore[index]
    quantizer, weight = held[0], held.original
    assert isinstance(quantizer, WeightQuantizer)
    scale = quantizer.scale(weight)
    shape = [1] * weight.ndim
    shape[quantizer.axis] = -1
    # Multiplies by the reciprocal, as fake quantization does in training: a division may round ties differently.
    steps = torch.clamp(torch.round(weight * scale.reciprocal().reshape(shape)), LOWEST, HIGHEST).to(torch.int8)
    # Not through parametrize's functions, which change a class that this copy shares with the original.
    held.original = nn.Parameter(steps, requires_grad=False)
    held[0] = _Stored(scale, quantizer.axis)


def _repeat_behind_moves(network: fx.GraphModule) -> None:
    found = grids(network)
    for node in list(network.graph.nodes):
        if node.name not in found or is_identity(node, network):
            continue
        with network.graph.inserting_after(node):
            again = network.graph.call_module(found[node.name], (node,))
        node.replace_all_uses_with(again, delete_user_cb=lambda user, own=again: user is not own)
    network.recompile()
