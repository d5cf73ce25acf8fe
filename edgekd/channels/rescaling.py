"""Which channels of a network can be rescaled between its layers without changing what it computes.

A channel that a layer computes may be divided by a positive factor, and the weights of the layers that read it
multiplied by the same, where every operator on its way is positively homogeneous, f(s x) = s f(x) for s > 0: ReLU,
leaky ReLU, PReLU, pooling, additions of channels with the same factor, products with values that are not rescaled, and
whatever only moves values. Channels that meet another operator (ReLU6, hard-swish, a softmax) or a constant that is
added to them are fixed, and so are the network's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.channels.recorder import CONSTANT, ChannelRecorder, Labels, along, found_in, tensors_in
from edgekd.runtime.preprocess import InputShape

_SAME_SIGN = {"relu", "leaky_relu", "neg", "abs"}
_CLAMPS = {"clamp", "clamp_min"}
_SUMS = {"add", "sub", "maximum", "minimum"}


@dataclass(frozen=True)
class LayerChannels:
    """The channels that a convolution or linear layer reads and computes.

    Attributes:
        inputs: of each element of the weight's first two dimensions, (outputs, inputs per group).
        read: of each channel of the layer's input.
        outputs: of each channel of its output.
    """

    inputs: Labels
    read: Labels
    outputs: Labels


@dataclass(frozen=True)
class Rescaling:
    """The channels of a network, and which of them may be rescaled.

    Attributes:
        layers: by the name of the layer's weight.
        biases: the name of each layer's bias, by the name of its weight.
        free: the channels that may be rescaled.
    """

    layers: Mapping[str, LayerChannels]
    biases: Mapping[str, str]
    free: frozenset[int]


def trace(model: nn.Module, shape: InputShape) -> Rescaling:
    """Follow the channels of a network.

    Args:
        model: takes images (1, *shape); in evaluation mode, on the CPU.
        shape: of the input.

    Raises:
        Exception: whatever the network's own code raises.
    """
    names = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    recorder = _Recorder(names)
    with torch.no_grad(), recorder:
        output = model(torch.zeros(1, *shape))
    for tensor in tensors_in(output):
        recorder.keep(recorder.labels(tensor))
    return recorder.rescaling()


class _Recorder(ChannelRecorder):  # type: ignore[no-untyped-call]
    """A tensor without labels is fixed: an input, a parameter, or the result of an operator that fixes its inputs."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__(names)
        self._fixed = self.fresh()
        self._kept.add(self._fixed)
        self._layers: dict[str, tuple[list[int], list[int], int]] = {}
        self._biases: dict[str, str] = {}

    def unlabelled(self, tensor: Tensor) -> Tensor:
        return torch.tensor(self._fixed)

    def rescaling(self) -> Rescaling:
        layers = {name: self._channels(*layer) for name, layer in self._layers.items()}
        read = {label for layer in layers.values() for label in layer.read.tolist()}
        computed = {label for layer in layers.values() for label in layer.outputs.tolist()}
        return Rescaling(layers, self._biases, frozenset((read & computed) - self.kept - {CONSTANT}))

    def _channels(self, read: list[int], outputs: list[int], groups: int) -> LayerChannels:
        own = np.array([label if label == CONSTANT else self.root(label) for label in read])
        inputs = np.repeat(own.reshape(groups, -1), len(outputs) // groups, axis=0)
        return LayerChannels(inputs, own, np.array([self.root(label) for label in outputs]))

    def convolution(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        images, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
        return not transposed and self._layer(result, images, weight, bias, groups)

    def matmul(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        bias, inputs, weight = args if len(args) == 3 else (None, *args)
        found = self.parameter(weight)
        return found is not None and found[1] == (1, 0) and self._layer(result, inputs, weight, bias, 1)

    def _layer(self, result: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
        read, found, own = along(self.labels(inputs), 1), self.parameter(weight), self.parameter(bias)
        if read is None or found is None or (bias is not None and own is None):
            return False
        name = found[0]
        known = self._layers.setdefault(name, (read, [self.fresh() for _ in range(result.shape[1])], groups))
        # A layer that runs twice has the same channels both times.
        for one, other in zip(known[0], read, strict=True):
            self.join(one, other)
        self.begin(result, known[1], dim=1)
        if own is not None:
            self._biases[name] = own[0]
        return True

    def pointwise(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        name = func.overloadpacket.__name__.removesuffix("_")
        if name in _SAME_SIGN or (name in _CLAMPS and _is_relu(args, kwargs)):
            self.give(result, self.labels(args[0]))
        elif name in _SUMS and all(isinstance(each, Tensor) for each in args[:2]):
            self.give(result, self.merged(args[:2], result.shape))
        elif name in ("mul", "div") and (factor := self._factor(args, swapped=name == "mul")) is not None:
            self.give(result, self.labels(factor).expand(result.shape))
        else:
            return False
        return True

    def prelu(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        self.give(result, self.labels(args[0]))
        return True

    def _factor(self, args: Any, *, swapped: bool) -> Tensor | None:
        """The argument whose channels a product or quotient has, the other being fixed; None where both are free."""
        one, other = args[:2]
        if self._is_fixed(other):
            return one if isinstance(one, Tensor) else None
        return other if swapped and self._is_fixed(one) else None

    def _is_fixed(self, value: Any) -> bool:
        labels: Iterable[int] = [self._fixed] if not isinstance(value, Tensor) else found_in(self.labels(value))
        return all(self.root(label) == self.root(self._fixed) for label in labels)

    def pads(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        return not (len(args) > 2 and args[2]) and super().pads(func, result, args, kwargs)


def _is_relu(args: Any, kwargs: Any) -> bool:
    """Whether the arguments of a clamp are those of a ReLU."""
    return [*args[1:], *kwargs.values()] in ([0], [0, None])


@torch.no_grad()
def rescale(model: nn.Module, rescaling: Rescaling, factors: Mapping[int, float]) -> None:
    """Divide channels by factors, in place; the layers that read them undo it.

    Args:
        model: the network that was followed.
        rescaling: its channels.
        factors: by channel, above 0; only of channels that are free. The others keep their scale.
    """
    tensors = dict(model.named_parameters())
    by_label = np.ones(1 + max([0, *factors]))
    by_label[list(factors)] = list(factors.values())

    def of(labels: Labels) -> Tensor:
        known = (labels >= 0) & (labels < len(by_label))
        return torch.from_numpy(np.where(known, by_label[np.where(known, labels, 0)], 1.0))

    for name, layer in rescaling.layers.items():
        weight, outputs = tensors[name], of(layer.outputs)
        factor = of(layer.inputs) / outputs[:, None]
        # In double precision, so that a factor and its inverse add no significant rounding error.
        weight.copy_(weight.double() * factor.reshape(*factor.shape, *[1] * (weight.ndim - 2)))
        if name in rescaling.biases:
            bias = tensors[rescaling.biases[name]]
            bias.copy_(bias.double() / outputs)
