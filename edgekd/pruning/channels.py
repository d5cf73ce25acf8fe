"""Removes channels: the widest network that meets a target, with widths rounded to a multiple."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgekd.errors import ModelError, summary
from edgekd.models.cost import cost
from edgekd.models.edits.prune import resize
from edgekd.pruning import importance
from edgekd.pruning.flow import Flow, tensors_in, trace
from edgekd.pruning.matching import gathered, match
from edgekd.pruning.widths import Part, narrowed_shapes, parts_of
from edgekd.runtime.preprocess import InputShape

# The pruning ratio is searched to this precision; widths change in far coarser steps.
_PRECISION = 1 / 128
_Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Width:
    """A layer's output channels before and after."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True)
class PrunedNetwork:
    """A network with fewer channels.

    Attributes:
        shapes: of the parameters and buffers that became smaller.
        kept: the remaining fraction of MACs or parameters, whichever the target is in.
        widths: of every convolution and linear layer.
    """

    model: nn.Module
    shapes: _Shapes
    kept: float
    widths: tuple[Width, ...]


def prune_channels(
    model: nn.Module,
    *,
    measure: str,
    target: float,
    multiple: int,
    shape: InputShape,
    shown: Callable[[int, int], None] | None = None,
) -> PrunedNetwork:
    """The widest copy of `model` with at most `target` of its MACs or parameters.

    Every layer loses the same fraction of its channels, those with the smallest norm over all layers that they run
    through (Fang et al. 2023, "DepGraph", section 3.3), but keeps at least `multiple`. The logits keep their number.

    Args:
        model: its first weighted layer takes (B, *shape).
        measure: "macs" or "parameters".
        target: fraction to keep, above 0 and below 1.
        multiple: changed widths become multiples of this.
        shape: of the input.
        shown: called with the number of networks tried, and of all.

    Raises:
        ModelError: this network cannot be pruned, or the target is out of reach.
    """
    channels = _Channels.of(model, shape, multiple)
    best = channels.reach(measure, target, multiple)
    low, high, halvings = 0.0, 1.0, math.ceil(-math.log2(_PRECISION))
    for tried in range(1, halvings + 1):
        if shown is not None:
            shown(tried, halvings + 1)
        middle = (low + high) / 2
        shapes = channels.narrowed(middle, multiple)
        if channels.kept(shapes, measure) <= target:
            high, best = middle, shapes
        else:
            low = middle
    return channels.pruned(best, measure)


def check_reachable(model: nn.Module, *, measure: str, target: float, multiple: int, shape: InputShape) -> float:
    """The fraction that the smallest network keeps which prune_channels() can make. Args as there.

    Raises:
        ModelError: this network cannot be pruned, or not as far as `target`.
    """
    channels = _Channels.of(model, shape, multiple)
    shapes = channels.reach(measure, target, multiple)
    return channels.pruned(shapes, measure).kept


@dataclass(frozen=True)
class _Channels:
    """A network and what is known of its channels. `parts` are those that can be narrowed."""

    model: nn.Module
    shape: InputShape
    cost: Mapping[str, int]
    parameters: frozenset[str]
    flow: Flow
    sizes: Mapping[str, tuple[int, ...]]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, model: nn.Module, shape: InputShape, multiple: int) -> _Channels:
        own = copy.deepcopy(model).eval().cpu()
        flow = _followed(own, shape)
        sizes = {name: tuple(tensor.shape) for name, tensor in _tensors(own).items()}
        parts = tuple(part for part in parts_of(flow, sizes) if len(part.counts(multiple)) > 1)
        channels = cls(own, shape, cost(own, shape), frozenset(dict(own.named_parameters())), flow, sizes, parts)
        if not channels.parts:
            raise _unprunable(model, _why_none(flow))
        return channels.without_fixed(multiple)

    def without_fixed(self, multiple: int) -> _Channels:
        """Without the parts whose number the network's code fixes: it does not run where they are narrowed.

        Raises:
            ModelError: it runs with none of them narrowed.
        """
        failure = self.failure(range(len(self.parts)), multiple)
        if failure is None:
            return self
        runs = [number for number in range(len(self.parts)) if self.failure([number], multiple) is None]
        if not runs or self.failure(runs, multiple) is not None:
            raise _unprunable(self.model, f"it does not run with fewer channels: {failure}")
        return replace(self, parts=tuple(self.parts[number] for number in runs))

    def failure(self, narrowed: Collection[int], multiple: int) -> str | None:
        """Why the network does not run where these parts are as narrow as can be; None where it does."""
        units = [_units(part, float(number in narrowed), multiple) for number, part in enumerate(self.parts)]
        narrow = copy.deepcopy(self.model)
        resize(narrow, narrowed_shapes(self.flow, self.parts, units, self.sizes))
        try:
            with torch.no_grad():
                found = tuple(tuple(tensor.shape) for tensor in tensors_in(narrow(torch.zeros(1, *self.shape))))
        # The network's own code runs, which may raise anything.
        except Exception as error:
            return summary(error)
        return None if found == self.flow.outputs else f"its output is {found}, not {self.flow.outputs}"

    def narrowed(self, share: float, multiple: int) -> _Shapes:
        """The shapes that change where every layer loses `share` of its channels, but keeps at least `multiple`."""
        units = [_units(part, share, multiple) for part in self.parts]
        return narrowed_shapes(self.flow, self.parts, units, self.sizes)

    def reach(self, measure: str, target: float, multiple: int) -> _Shapes:
        """The smallest shapes. Raises ModelError where they keep more than `target`."""
        shapes = self.narrowed(1.0, multiple)
        if (kept := self.kept(shapes, measure)) > target:
            raise ModelError(
                f"the pruning target {target:g} of the {measure} is out of reach",
                found=f"{kept:.3f} remains where every layer keeps only {multiple} channels, or all of fewer"
                + (
                    f"; layers are left whole whose channels meet {_listed(self.flow.unknown)}"
                    if self.flow.unknown
                    else ""
                ),
                allowed=f"{kept:.3f} to 1",
                hint="use a smaller prune.multiple, or a student with more layers and channels",
            )
        return shapes

    def kept(self, shapes: _Shapes, measure: str) -> float:
        """The fraction of the cost that the narrowed network keeps, counted from its shapes."""
        saved = sum(
            (math.prod(self.sizes[name]) - math.prod(shape)) * self.weight_of(name, measure)
            for name, shape in shapes.items()
        )
        return 1.0 - saved / self.cost[measure]

    def weight_of(self, name: str, measure: str) -> int:
        """What an element of a tensor costs: multiply-accumulates per image, or whether it is a parameter."""
        return self.flow.positions.get(name, 0) if measure == "macs" else int(name in self.parameters)

    def pruned(self, shapes: _Shapes, measure: str) -> PrunedNetwork:
        """The network with those of its channels that matter most. Raises ModelError where it does not run."""
        narrow = copy.deepcopy(self.model)
        resize(narrow, shapes)
        flow = _followed(narrow, self.shape)
        channels = match(self.flow, flow, importance.magnitude(self.model, self.flow))
        own = gathered(_tensors(self.model), self.flow, flow, channels)
        with torch.no_grad():
            for name, tensor in _tensors(narrow).items():
                tensor.copy_(own[name])
        return PrunedNetwork(narrow, shapes, self.kept(shapes, measure), tuple(_widths(self.model, narrow)))


def _followed(model: nn.Module, shape: InputShape) -> Flow:
    """Raises ModelError where the network's own code fails, which may raise anything."""
    try:
        return trace(model, shape)
    except Exception as error:
        raise _unprunable(model, f"its channels cannot be followed: {summary(error)}") from error


def _units(part: Part, share: float, multiple: int) -> int:
    """The number of units nearest to what remains of a part without `share`, of those that are allowed."""
    wanted = (1.0 - share) * part.unit
    return min(part.counts(multiple), key=lambda count: (abs(count - wanted), count))


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _why_none(flow: Flow) -> str:
    if flow.unknown:
        return f"all of its channels meet operators that do not treat channels apart: {_listed(flow.unknown)}"
    return "none of its layers has channels that can go"


def _listed(operators: tuple[str, ...]) -> str:
    return ", ".join(operators[:4]) + (" and others" if len(operators) > 4 else "")


def _unprunable(model: nn.Module, found: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} cannot be pruned",
        found=found,
        allowed="convolutional networks, e.g. MobileNet, ShuffleNetV2, EfficientNet, RegNet, ResNet",
        hint="remove the prune section, or take another student",
    )


def _widths(model: nn.Module, narrow: nn.Module) -> Iterator[Width]:
    after = dict(narrow.named_modules())
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield Width(name, layer.weight.shape[0], after[name].weight.shape[0])
