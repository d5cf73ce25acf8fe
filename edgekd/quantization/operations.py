"""Classifies the operations of a traced network for quantization: which make new values, and which only move them."""

from __future__ import annotations

import copy
import enum
import math
from typing import Any

import torch
from torch import fx, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (*_CONVOLUTIONS, *_TRANSPOSED)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)

_RELU_MODULES = (nn.ReLU, nn.ReLU6)
_RELU_NAMES = frozenset({"relu", "relu_", "relu6"})

_COMPUTING_MODULES = (
    *WEIGHTED,
    *_RELU_MODULES,
    nn.modules.batchnorm._BatchNorm,
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.Mish, nn.GELU),
    *(nn.LeakyReLU, nn.ELU, nn.PReLU, nn.Upsample),
)
_COMPUTING_NAMES = _RELU_NAMES | {
    *("add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "div", "div_", "truediv", "itruediv"),
    *("neg", "cat", "concat", "concatenate", "stack", "mean", "matmul", "bmm", "interpolate"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh", "silu", "mish", "gelu", "leaky_relu", "elu", "prelu"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "batch_norm"),
}
# As functions these take their weights as arguments, so that no quantizer can be attached to them.
_FLOAT_WEIGHTS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "batch_norm"}) | {
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}

_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_PRESERVING_MODULES = (
    *_IDENTITIES,
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.ZeroPad2d),
)
_PRESERVING_NAMES = frozenset(
    {
        *("flatten", "reshape", "view", "transpose", "permute", "contiguous", "squeeze", "unsqueeze", "swapaxes"),
        *("getitem", "chunk", "split", "unbind", "detach", "clone", "narrow", "select", "flip", "roll", "expand"),
        *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "amax"),
        *("dropout", "dropout2d", "pixel_shuffle", "channel_shuffle", "stochastic_depth"),
    }
)
_SIZE_METHODS = frozenset({"size", "dim", "numel", "ndimension"})
_SIZE_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"})
# One call returns several tensors; the grids are those of its items.
_MANY = frozenset({"chunk", "split", "unbind"})


class Effect(enum.Enum):
    """What a node's output is."""

    INPUT = "the network's input"
    COMPUTED = "new values"
    PRESERVED = "values of its first input, moved or selected"
    NUMBER = "not an activation: a size, a shape, a constant, the output"
    UNKNOWN = "values of an unknown operation"


def effect_of(node: fx.Node, network: fx.GraphModule) -> Effect:
    """Classify a node of the network's graph."""
    if node.op == "placeholder":
        return Effect.INPUT
    if node.op in ("get_attr", "output") or _is_number(node):
        return Effect.NUMBER
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if isinstance(module, _PRESERVING_MODULES):
            return Effect.PRESERVED
        return Effect.COMPUTED if isinstance(module, _COMPUTING_MODULES) else Effect.UNKNOWN
    name = operation_of(node)
    if name in _PRESERVING_NAMES or (name == "pad" and _adds_zeros(node)):
        return Effect.PRESERVED
    return Effect.COMPUTED if name in _COMPUTING_NAMES else Effect.UNKNOWN


def operation_of(node: fx.Node) -> str:
    """The name of a called function or method, without its module: torch.add, operator.add and Tensor.add are equal."""
    return str(getattr(node.target, "__name__", node.target))


def is_relu(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a node is a ReLU, which engines fuse with the operation before it."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _RELU_MODULES)
    return node.op != "placeholder" and operation_of(node) in _RELU_NAMES


def is_addition(node: fx.Node) -> bool:
    """Whether a node adds its inputs."""
    return node.op in ("call_function", "call_method") and operation_of(node) in ("add", "add_", "iadd")


def is_convolution(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a node is a convolution, not a transposed one."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _CONVOLUTIONS)
    return node.op == "call_function" and operation_of(node) in ("conv1d", "conv2d", "conv3d")


def is_identity(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a node disappears in an exported network."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _IDENTITIES)
    return node.op != "placeholder" and operation_of(node) in ("dropout", "stochastic_depth", "contiguous", "detach")


def users_of(node: fx.Node, network: fx.GraphModule) -> list[fx.Node]:
    """The nodes that read a node's values, without those that only ask for its size."""
    return [user for user in node.users if effect_of(user, network) is not Effect.NUMBER or user.op == "output"]


def is_many(node: fx.Node) -> bool:
    """Whether a node returns several tensors, as chunk does."""
    return node.op != "call_module" and operation_of(node) in _MANY


def keeps_float_weights(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a node has weights that no quantizer can be attached to."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if isinstance(module, WEIGHTED):
            return not uses_weight_unchanged(module)
        return isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.PReLU))
    return operation_of(node) in _FLOAT_WEIGHTS


def uses_weight_unchanged(module: nn.Module) -> bool:
    """Whether a layer computes with its weight unchanged, so that its weight can be folded and rounded.

    A subclass of a torch layer may pad or cast its input, which is fine. It may also standardise its weight first, as
    timm's StdConv2d does: then the output is not linear in the weight.
    """
    kind = next((kind for kind in type(module).__mro__ if kind in WEIGHTED), None)
    return kind is not None and (type(module).forward is kind.forward or _is_linear_in_weight(module))


@torch.no_grad()
def _is_linear_in_weight(module: nn.Module) -> bool:
    own: Any = copy.deepcopy(module).cpu().float().eval()
    if isinstance(own, nn.Linear):
        shape: tuple[int, ...] = (1, own.in_features)
    else:
        shape = (
            1,
            own.in_channels,
            *(2 * size * step for size, step in zip(own.kernel_size, own.dilation, strict=True)),
        )
    if own.bias is not None:
        own.bias.zero_()
    values = torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape)
    once = own(values)
    own.weight.mul_(2.0)
    return torch.allclose(own(values), 2.0 * once, rtol=1e-4, atol=1e-6)


def weight_axis(module: nn.Module) -> int:
    """The axis of a weighted layer's output channels."""
    return 1 if isinstance(module, _TRANSPOSED) else 0


def _is_number(node: fx.Node) -> bool:
    """Sizes, shapes, and arithmetic on these only."""
    if node.op == "call_method":
        return str(node.target) in _SIZE_METHODS
    if node.op != "call_function":
        return False
    if node.target is getattr and node.args[1] in _SIZE_ATTRIBUTES:
        return True
    inputs = node.all_input_nodes
    return operation_of(node) == "_assert" or (bool(inputs) and all(_is_number(source) for source in inputs))


def _adds_zeros(node: fx.Node) -> bool:
    """Whether a pad adds zeros, which every symmetric grid contains; it may not contain another constant."""
    value: Any = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    return value is None or value == 0
