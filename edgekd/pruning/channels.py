"""A network whose channels are followed: what of it can be narrowed, and the narrower network with its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgekd.errors import ModelError, summary
from edgekd.models.cost import cost
from edgekd.models.edits.prune import resize
from edgekd.pruning.flow import Flow, Site, tensors_in, trace
from edgekd.pruning.importance import Scores
from edgekd.pruning.matching import gathered, match
from edgekd.pruning.widths import Part, narrowed_shapes, parts_of
from edgekd.runtime.preprocess import InputShape

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Channels:
    """A network and what is known of its channels.

    Attributes:
        model: a copy, in evaluation mode, on the CPU.
        shape: of the input.
        multiple: changed widths become multiples of this.
        cost: "macs" and "parameters".
        parts: what can be narrowed.
        whole: the layers that cannot be, with the reason.
    """

    model: nn.Module
    shape: InputShape
    multiple: int
    cost: Mapping[str, int]
    parameters: frozenset[str]
    flow: Flow
    sizes: Mapping[str, tuple[int, ...]]
    parts: tuple[Part, ...]
    whole: Mapping[str, str]

    @classmethod
    def of(cls, model: nn.Module, shape: InputShape, multiple: int) -> Channels:
        """Raises ModelError where this network cannot be pruned."""
        own = copy.deepcopy(model).eval().cpu()
        flow = _followed(own, shape)
        sizes = {name: tuple(tensor.shape) for name, tensor in _tensors(own).items()}
        parts = parts_of(flow, sizes)
        wide = tuple(part for part in parts if len(part.counts(multiple)) > 1)
        narrow = [part for part in parts if part not in wide]
        whole = dict.fromkeys(_inner_layers(flow) - _layers_of(flow, parts), _why_kept(flow))
        whole |= dict.fromkeys(_layers_of(flow, narrow), f"no smaller width is a multiple of {multiple}")
        parameters = frozenset(dict(own.named_parameters()))
        channels = cls(own, shape, multiple, cost(own, shape), parameters, flow, sizes, wide, whole)
        if not channels.parts:
            raise _unprunable(model, _why_none(flow))
        return channels._without_fixed()

    def _without_fixed(self) -> Channels:
        """Without the parts whose number the network's code fixes: it does not run where they are narrowed.

        Raises:
            ModelError: it runs with none of them narrowed.
        """
        failure = self._failure(range(len(self.parts)))
        if failure is None:
            return self
        runs = [number for number in range(len(self.parts)) if self._failure([number]) is None]
        if not runs or self._failure(runs) is not None:
            raise _unprunable(self.model, f"it does not run with fewer channels: {failure}")
        fixed = [part for number, part in enumerate(self.parts) if number not in runs]
        whole = dict.fromkeys(_layers_of(self.flow, fixed), "the network's own code fixes their number")
        return replace(self, parts=tuple(self.parts[number] for number in runs), whole={**self.whole, **whole})

    def _failure(self, narrowed: Collection[int]) -> str | None:
        """Why the network does not run where these parts are as narrow as can be; None where it does."""
        units = [part.counts(self.multiple)[0 if number in narrowed else -1] for number, part in enumerate(self.parts)]
        narrow = copy.deepcopy(self.model)
        resize(narrow, narrowed_shapes(self.flow, self.parts, units, self.sizes))
        try:
            with torch.no_grad():
                found = tuple(tuple(tensor.shape) for tensor in tensors_in(narrow(torch.zeros(1, *self.shape))))
        # The network's own code runs, which may raise anything.
        except Exception as error:
            return summary(error)
        return None if found == self.flow.outputs else f"its output is {found}, not {self.flow.outputs}"

    def narrowed(self, units: Sequence[int]) -> Shapes:
        """The shapes that change where each part keeps so many units."""
        return narrowed_shapes(self.flow, self.parts, units, self.sizes)

    def kept(self, shapes: Shapes, measure: str) -> float:
        """The fraction of "macs" or "parameters" that the narrower network keeps, counted from its shapes."""
        saved = sum(
            (math.prod(self.sizes[name]) - math.prod(shape)) * self._weight_of(name, measure)
            for name, shape in shapes.items()
        )
        return 1.0 - saved / self.cost[measure]

    def _weight_of(self, name: str, measure: str) -> int:
        """What an element of a tensor costs: multiply-accumulates per image, or whether it is a parameter."""
        return self.flow.positions.get(name, 0) if measure == "macs" else int(name in self.parameters)

    def pruned(self, shapes: Shapes, scores: Scores) -> nn.Module:
        """The narrower network with the channels of the highest scores. Raises ModelError where it does not run."""
        narrow = copy.deepcopy(self.model)
        resize(narrow, shapes)
        flow = _followed(narrow, self.shape)
        own = gathered(_tensors(self.model), self.flow, flow, match(self.flow, flow, scores))
        with torch.no_grad():
            for name, tensor in _tensors(narrow).items():
                tensor.copy_(own[name])
        return narrow

    def sample(self, shapes: Shapes) -> nn.Module:
        """A network as narrow as these shapes, with random weights where it is narrower."""
        narrow = copy.deepcopy(self.model)
        resize(narrow, shapes)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, tensor in _tensors(narrow).items():
                if name in shapes:
                    # Positive: among them are the variances of batch norms.
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        return narrow


def _followed(model: nn.Module, shape: InputShape) -> Flow:
    """Raises ModelError where the network's own code fails, which may raise anything."""
    try:
        return trace(model, shape)
    except Exception as error:
        raise _unprunable(model, f"its channels cannot be followed: {summary(error)}") from error


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _why_none(flow: Flow) -> str:
    if flow.unknown:
        return f"all of its channels meet operators that do not treat channels apart: {_listed(flow.unknown)}"
    return "none of its layers has channels that can go"


def _listed(operators: tuple[str, ...]) -> str:
    return ", ".join(operators[:4]) + (" and others" if len(operators) > 4 else "")


def _why_kept(flow: Flow) -> str:
    if flow.unknown:
        return f"its channels meet operators that do not treat channels apart: {_listed(flow.unknown)}"
    return "its channels are added to the input's or the output's"


def _inner_layers(flow: Flow) -> set[str]:
    """All convolutions and linear layers but those that compute the output."""
    return {
        name.removesuffix(".weight")
        for name in flow.positions
        if not flow.logits.issuperset(flow.sites[Site(name, 0)].tolist())
    }


def _layers_of(flow: Flow, parts: Collection[Part]) -> set[str]:
    """The layers whose outputs are channels of these parts."""
    channels = {channel for part in parts for channel in part.channels}
    return {
        name.removesuffix(".weight")
        for name in flow.positions
        if channels.issuperset(flow.sites[Site(name, 0)].tolist())
    }


def _unprunable(model: nn.Module, found: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} cannot be pruned",
        found=found,
        allowed="convolutional networks, e.g. MobileNet, ShuffleNetV2, EfficientNet, RegNet, ResNet",
        hint="remove the prune section, or take another student",
    )
