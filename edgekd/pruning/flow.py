"""Which channels of which layers belong together: a label for every channel flows through the network's own operators.

The network runs once on one image. Operators that combine tensors element by element declare the labels that meet to be
one channel; convolutions and linear layers end channels and begin new ones. See edgekd.channels.recorder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.channels.recorder import CONSTANT, ChannelRecorder, Labels, Site, along, found_in, tensors_in
from edgekd.runtime.preprocess import InputShape

__all__ = ["CONSTANT", "Flow", "Labels", "Site", "tensors_in", "trace"]


@dataclass(frozen=True)
class Flow:
    """The channels of a network.

    Attributes:
        sites: the channel of every position at each site, CONSTANT where it belongs to none.
        kept: the channels that cannot be removed: the input's, the output's, and those that meet an operator which is
            not known to treat channels apart.
        tied: channels that only work when they are removed in proportion, since their tensor is cut into parts.
        unknown: the operators that channels were kept for, e.g. "aten::_softmax".
        outputs: the shapes of the outputs for one image.
        positions: by the name of each convolution's or linear layer's weight, how often it is applied to an image: at
            how many pixels. A weight of n elements costs n multiply-accumulates each time.
        logits: those of the kept channels that the outputs consist of.
    """

    sites: Mapping[Site, Labels]
    kept: frozenset[int]
    tied: tuple[frozenset[int], ...]
    unknown: tuple[str, ...]
    outputs: tuple[tuple[int, ...], ...]
    positions: Mapping[str, int]
    logits: frozenset[int] = frozenset()


def trace(model: nn.Module, shape: InputShape) -> Flow:
    """Follow the channels of a network.

    Args:
        model: takes images (1, *shape); in evaluation mode, on the CPU.
        shape: of the input.

    Returns:
        Its channels.

    Raises:
        Exception: whatever the network's own code raises.
    """
    names = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    recorder = _Recorder(names)
    image = torch.zeros(1, *shape)
    recorder.begin(image, [recorder.fresh() for _ in range(shape[0])], dim=1, kept=True)
    with torch.no_grad(), recorder:
        output = model(image)
    outputs = tensors_in(output)
    for tensor in outputs:
        recorder.keep(recorder.labels(tensor))
    return recorder.flow(outputs)


class _Recorder(ChannelRecorder):  # type: ignore[no-untyped-call]
    """Adds what pruning asks: which channels are tied, and how often a weight is applied."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__(names)
        self._tied: list[set[int]] = []
        self._positions: dict[str, int] = {}

    def flow(self, outputs: Iterable[Tensor]) -> Flow:
        """All that was recorded."""
        return Flow(
            {
                site: np.array([CONSTANT if label == CONSTANT else self.root(label) for label in labels])
                for site, labels in self.sites.items()
            },
            self.kept,
            tuple(frozenset(self.root(label) for label in labels) for labels in self._tied),
            tuple(self.unknown),
            tuple(tuple(tensor.shape) for tensor in outputs),
            self._positions,
            frozenset(self.root(label) for tensor in outputs for label in found_in(self.labels(tensor))),
        )

    def convolution(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        images, weight, bias, groups, transposed = args[0], args[1], args[2], args[8], args[6]
        channels = along(self.labels(images), 1)
        if channels is None or transposed or self.parameter(weight) is None:
            return False
        outputs = [self.fresh() for _ in range(weight.shape[0])]
        if groups == 1:
            self.uses(weight, 1, channels)
        else:
            self._join_groups(channels, outputs, groups)
        self.uses(weight, 0, outputs)
        self.uses(bias, 0, outputs)
        self._begin_outputs(result, weight, outputs)
        return True

    def _begin_outputs(self, result: Tensor, weight: Tensor, outputs: Sequence[int]) -> None:
        """Label what a layer computes, (1, C, H, W) or (N, C)."""
        self.begin(result, outputs, dim=1)
        parameter = self.parameter(weight)
        assert parameter is not None
        self._positions[parameter[0]] = self._positions.get(parameter[0], 0) + result.numel() // len(outputs)

    def _join_groups(self, channels: Sequence[int], outputs: Sequence[int], groups: int) -> None:
        """A group of a convolution remains whole or goes: its inputs and outputs are one channel."""
        into, out = len(channels) // groups, len(outputs) // groups
        for group in range(groups):
            members = [*channels[group * into : (group + 1) * into], *outputs[group * out : (group + 1) * out]]
            for member in members:
                self.join(members[-1], member)

    def matmul(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        bias, inputs, weight = args if len(args) == 3 else (None, *args)
        channels = along(self.labels(inputs), 1)
        if channels is None or self.parameter(weight) is None:
            return False
        outputs = [self.fresh() for _ in range(weight.shape[1])]
        self.uses(weight, 0, channels)
        self.uses(weight, 1, outputs)
        self.uses(bias, 0, outputs)
        self._begin_outputs(result, weight, outputs)
        return True

    def batch_norm(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        labels = self.labels(args[0])
        channels = along(labels, 1)
        if channels is None:
            return False
        for parameter in args[1:5]:
            self.uses(parameter, 0, channels)
        self.give(result[0], labels)
        return True

    def pointwise(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        tensors = list(tensors_in([args, kwargs]))
        if not isinstance(result, Tensor) or any(self._is_view_of_parameter(tensor) for tensor in tensors):
            return False
        labels = self.merged(tensors, result.shape)
        for tensor in tensors:
            if id(tensor) in self._names and not self._spread(tensor, labels):
                return False
        self.give(result, labels)
        return True

    def _is_view_of_parameter(self, tensor: Tensor) -> bool:
        return id(tensor) in self._views

    def _spread(self, parameter: Tensor, labels: Tensor) -> bool:
        """Record the channels that a parameter, broadcast to `labels`, belongs to; False where that is not clear."""
        skipped = labels.dim() - parameter.dim()
        for dim, size in enumerate(parameter.shape):
            if size > 1:
                channels = along(labels, skipped + dim)
                # Positions that all have the same channel are no channels, e.g. pixels.
                if channels is None or len(set(channels)) < size:
                    if parameter.numel() == size:
                        return False
                    continue
                self.uses(parameter, dim, channels)
        return True

    def moved(self, args: Any, labels: Any) -> None:
        """Where a tensor's channels are cut into parts, they must be removed in proportion."""
        before = {label for tensor in tensors_in(args) for label in found_in(self.labels(tensor))}
        for part in tensors_in(labels):
            if 0 < len(found_in(part)) < len(before):
                self._tied.append(before)
                return
