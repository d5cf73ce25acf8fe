"""Folds batch norms into the convolutions before them: (w * x + b - mean) / std * gain + offset is one convolution."""

from __future__ import annotations

import torch
from torch import fx, nn

from edgekd.quantization.operations import CONVOLUTIONS, uses_weight_unchanged, weight_axis

BatchNorm = nn.modules.batchnorm._BatchNorm


def has_activation(module: nn.Module) -> bool:
    """Whether this is timm's batch norm with activation, which applies its children `drop` and `act` to its output."""
    return isinstance(module, BatchNorm) and [name for name, _ in module.named_children()] == ["drop", "act"]


def fold_norms(network: fx.GraphModule) -> None:
    """Fold every foldable batch norm, in place; the folded weights and biases are trainable.

    In eval mode the outputs stay the same up to rounding. A norm is not folded where its input has another user, is
    not a convolution, or is a convolution that runs more than once, or where the norm keeps no running statistics.
    """
    calls = [node.target for node in network.graph.nodes if node.op == "call_module"]
    for node in list(network.graph.nodes):
        if not _is_foldable(node, network, calls):
            continue
        source = node.args[0]
        conv = network.get_submodule(source.target)
        norm = network.get_submodule(node.target)
        assert isinstance(conv, CONVOLUTIONS) and isinstance(norm, BatchNorm)
        _fold(conv, norm)
        node.replace_all_uses_with(_replacement(node, norm, source, network))
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()


def _is_foldable(node: fx.Node, network: fx.GraphModule, calls: list[object]) -> bool:
    if node.op != "call_module" or not node.args:
        return False
    norm, source = network.get_submodule(str(node.target)), node.args[0]
    if not isinstance(norm, BatchNorm) or norm.running_mean is None or calls.count(node.target) > 1:
        return False
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
        return False
    conv = network.get_submodule(str(source.target))
    # The output channels of a grouped transposed convolution do not lie along one axis of its weight.
    grouped = weight_axis(conv) == 1 and getattr(conv, "groups", 1) > 1
    own = isinstance(conv, CONVOLUTIONS) and uses_weight_unchanged(conv)
    return own and not grouped and calls.count(source.target) == 1


@torch.no_grad()
def _fold(conv: nn.Module, norm: BatchNorm) -> None:
    assert isinstance(conv, CONVOLUTIONS) and norm.running_mean is not None and norm.running_var is not None
    # In double precision, so that folding adds no significant rounding error.
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gain = norm.weight.double() if norm.affine else torch.ones_like(mean)
    offset = norm.bias.double() if norm.affine else torch.zeros_like(mean)
    factor = gain / torch.sqrt(variance + norm.eps)
    shape = [1] * conv.weight.ndim
    shape[weight_axis(conv)] = -1
    bias = conv.bias.double() if conv.bias is not None else torch.zeros_like(mean)
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter((conv.weight.double() * factor.reshape(shape)).to(dtype))
    conv.bias = nn.Parameter(((bias - mean) * factor + offset).to(dtype))


def _replacement(node: fx.Node, norm: BatchNorm, source: fx.Node, network: fx.GraphModule) -> fx.Node:
    """What replaces a folded norm: its convolution, or timm's drop and activation after it."""
    if not has_activation(norm):
        return source
    children = dict(norm.named_children())
    network.set_submodule(str(node.target), nn.ModuleDict(children))
    last = source
    with network.graph.inserting_before(node):
        for name in children:
            last = network.graph.call_module(f"{node.target}.{name}", (last,))
    return last
