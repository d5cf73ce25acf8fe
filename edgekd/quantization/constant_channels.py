"""Folds channels that are the same for every image into the biases of the layer after them, before quantization.

Training with weight decay leaves channels whose weights are next to 0. Behind a ReLU such a channel is 0, or its bias
alone. Quantized as it is, it takes part in the range that its neighbours share, and its bias needs more int32 steps
than there are.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from edgekd.errors import summary
from edgekd.quantization.operations import is_identity, is_relu, operation_of, uses_weight_unchanged

# Of the largest output: the most by which rounding may change the network.
_SAME = 1e-6
# How much further than on the images that were looked at an input may reach.
_MARGIN = 4.0
# A float32 does not change where this share of it is added.
_ROUNDED = 2.0**-24
# How many of the examples are computed in float64, which CPUs do slowly.
_COMPARED = 4

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Each of these computes an element from that element, and treats channels alike.
_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh),
)
_POINTWISE_NAMES = frozenset(
    {"relu", "relu_", "relu6", "hardtanh", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"}
    | {"sigmoid", "tanh"}
)
# Of a channel that is the same everywhere, these return the same; the padding of a max-pool never wins.
_MAPS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.MaxPool2d)
_MAP_NAMES = frozenset({"adaptive_avg_pool2d", "adaptive_max_pool2d", "max_pool2d"})
# Subclasses may pad in their own way.
_FORWARDS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)


@dataclass(frozen=True)
class ConstantChannels:
    """What was folded.

    Attributes:
        channels: how many.
        difference: the largest change of an output in float64, relative to the largest output.
        refused: why the network was left as it was; None otherwise.
    """

    channels: int
    difference: float
    refused: str | None = None


@torch.no_grad()
def fold_constants(network: fx.GraphModule, examples: Tensor) -> ConstantChannels:
    """Fold the constant channels of a network in place; it computes the same up to rounding, which is verified.

    A channel is constant where its weights are too small to change its bias or what the next layer computes, for
    inputs four times as large as those of the examples, or where they cannot lift it above 0 before a ReLU. Its
    constant becomes part of the next layer's bias, and its weights 0 on both sides. Where that layer pads its input
    with zeros, a constant other than 0 is not the same everywhere, and the channel is left as it is.

    Args:
        network: of placement.folded(), on the CPU.
        examples: images (N, C, H, W); the outputs are compared on the first four.

    Returns:
        What was folded: nothing where the outputs would change, and the network is as it was.
    """
    before = copy.deepcopy(network.state_dict())
    largest: dict[str, tuple[float, float]] = {}
    rounded = _watched(network, examples, largest)[:_COMPARED]
    try:
        expected = _in_float64(network, examples)
    # Runs the network's own code in a type that it may not be made for, which may raise anything.
    except Exception as error:
        return ConstantChannels(0, 0.0, f"its outputs cannot be compared in float64: {summary(error)}")
    # In the graph's order: a depthwise layer whose input is folded has a constant channel itself.
    folded = sum(_fold(link, largest[link.first][0], largest[link.second][1]) for link in _links(network))
    if not folded:
        return ConstantChannels(0, 0.0)
    scale = float(expected.abs().max().clamp_min(1e-12))
    difference = float((_in_float64(network, examples) - expected).abs().max()) / scale
    # Large biases that cancel round to more than that, folded or not.
    rounding = float((rounded - expected).abs().max()) / scale
    if not difference <= max(_SAME, 2 * rounding):
        network.load_state_dict(before)
        return ConstantChannels(0, difference, f"folded, its outputs differ by {difference:.1e} of the largest")
    return ConstantChannels(folded, difference)


def _in_float64(network: fx.GraphModule, images: Tensor) -> Tensor:
    outputs: Tensor = copy.deepcopy(network).double()(images[:_COMPARED].double())
    return outputs


@dataclass(frozen=True)
class _Link:
    """Two layers, and the operations between them, which no other layer reads."""

    network: fx.GraphModule
    first: str
    between: tuple[fx.Node, ...]
    second: str

    @property
    def layers(self) -> tuple[Any, Any]:
        return self.network.get_submodule(self.first), self.network.get_submodule(self.second)

    @property
    def has_relu(self) -> bool:
        """Whether the first operation is a ReLU."""
        real = [node for node in self.between if not is_identity(node, self.network)]
        return bool(real) and is_relu(real[0], self.network)

    def of(self, values: Tensor) -> Tensor:
        """What the operations between make of constant channels, (channels,)."""
        for node in self.between:
            if node.op == "call_module":
                module = self.network.get_submodule(str(node.target))
                values = module(values.clone()) if isinstance(module, _POINTWISE) else values
            elif operation_of(node) in _POINTWISE_NAMES:
                operation: Any = node.target if node.op == "call_function" else getattr(torch.Tensor, str(node.target))
                values = operation(values.clone(), *node.args[1:], **node.kwargs)
        return values


def _links(network: fx.GraphModule) -> Iterator[_Link]:
    calls = Counter(str(node.target) for node in network.graph.nodes if node.op == "call_module")
    for node in network.graph.nodes:
        if not _is_layer(node, network, calls):
            continue
        between: list[fx.Node] = []
        kinds: list[str] = []
        last = node
        while len(last.users) == 1:
            last = next(iter(last.users))
            if (kind := _kind(last, network)) is None:
                break
            between.append(last)
            kinds.append(kind)
        if last is not node and _is_layer(last, network, calls):
            link = _Link(network, str(node.target), tuple(between), str(last.target))
            if _is_channelwise(*link.layers, kinds):
                yield link


def _is_layer(node: fx.Node, network: fx.GraphModule, calls: Counter[str]) -> bool:
    layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer, _LAYERS) and calls[str(node.target)] == 1 and uses_weight_unchanged(layer)


def _kind(node: fx.Node, network: fx.GraphModule) -> str | None:
    """What an operation makes of a map (N, C, H, W): "pointwise", another "map", or "columns" (N, C)."""
    if is_identity(node, network):
        return "pointwise"
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    name = "" if module is not None else operation_of(node)
    # An operation on several tensors does not make one constant of another.
    if len(node.all_input_nodes) != 1:
        return None
    if isinstance(module, _POINTWISE) or name in _POINTWISE_NAMES:
        return "pointwise"
    if isinstance(module, _MAPS) or name in _MAP_NAMES:
        return "map"
    arguments = [*node.args[1:], *node.kwargs.values()]
    if (isinstance(module, nn.Flatten) and module.start_dim == 1) or (name == "flatten" and arguments[:1] == [1]):
        return "columns"
    means = [{2, 3}, {-1, -2}]
    return "columns" if name == "mean" and len(arguments) == 1 and _as_set(arguments[0]) in means else None


def _as_set(value: Any) -> set[Any]:
    return set(value) if isinstance(value, (tuple, list)) else {value}


def _is_channelwise(first: Any, second: Any, kinds: list[str]) -> bool:
    """Whether the second layer's inputs are the first one's channels."""
    if isinstance(first, nn.Linear):
        ordered = isinstance(second, nn.Linear) and set(kinds) <= {"pointwise"}
    else:
        ordered = ("columns" in kinds) == isinstance(second, nn.Linear)
    return ordered and len(first.weight) == second.weight.shape[1] * getattr(second, "groups", 1)


def _fold(link: _Link, largest_input: float, largest_output: float) -> int:
    """Fold the constant channels between two layers; how many.

    Args:
        link: the layers.
        largest_input, largest_output: absolute values, of the first layer and of the second.
    """
    first, second = link.layers
    size = first.weight.double().abs().flatten(1).sum(1) * largest_input * _MARGIN
    bias = torch.zeros_like(size) if first.bias is None else first.bias.double()
    constant = size <= _ROUNDED * bias.abs()
    effect = (size + bias.abs()) * _most_read(second)
    zero = (effect <= _ROUNDED * largest_output) | ((size <= -bias) & link.has_relu)
    value = link.of(torch.where(zero, 0.0, bias).float()).double()
    chosen = (constant | zero) & ((value == 0.0) | _carries_constants(second))
    chosen &= (first.weight.flatten(1) != 0).any(1) | (bias != 0)  # the others are folded already
    reads = _by_input(second, chosen)
    if second.bias is not None:
        added = torch.where(reads, _sums(second.weight) * _by_input(second, value), 0.0).sum(1)
        second.bias.copy_(second.bias.double() + added)
    second.weight[reads] = 0.0
    first.weight[chosen] = 0.0
    if first.bias is not None:
        first.bias[chosen] = 0.0
    return int(chosen.sum())


def _carries_constants(layer: Any) -> bool:
    """Whether a constant input makes a constant output that its bias can take over."""
    padded = isinstance(layer, _ConvNd) and (type(layer).forward not in _FORWARDS or any(_padding(layer)))
    return layer.bias is not None and not padded


def _padding(layer: _ConvNd) -> list[int]:
    """At the start and end of each axis, however it was stated."""
    return list(layer._reversed_padding_repeated_twice)


def _sums(weight: Tensor) -> Tensor:
    """(outputs, inputs per group): the sum of each kernel."""
    return weight.double().reshape(*weight.shape[:2], -1).sum(2)


def _most_read(layer: Any) -> Tensor:
    """(channels,): of each input, the largest sum of absolute weights with which an output reads it."""
    groups = getattr(layer, "groups", 1)
    sums = _sums(layer.weight.abs())
    return sums.reshape(groups, -1, sums.shape[1]).amax(1).flatten()


def _by_input(layer: Any, values: Tensor) -> Tensor:
    """(outputs, inputs per group): of each weight, the value of the channel that it reads."""
    outputs, per_group = layer.weight.shape[:2]
    groups = getattr(layer, "groups", 1)
    return values.reshape(groups, 1, per_group).expand(groups, outputs // groups, per_group).reshape(outputs, per_group)


def _watched(network: nn.Module, images: Tensor, largest: dict[str, tuple[float, float]]) -> Tensor:
    """The network's outputs; fills in the largest absolute input and output of every layer, by its path."""

    def see(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        largest[path] = float(inputs[0].abs().max()), float(output.abs().max())

    layers = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, _LAYERS)]
    hooks = [layer.register_forward_hook(partial(see, path)) for path, layer in layers]
    try:
        outputs: Tensor = network(images)
        return outputs
    finally:
        for hook in hooks:
            hook.remove()
