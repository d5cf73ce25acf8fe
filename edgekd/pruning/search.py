"""The widest narrower network that meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from edgekd.errors import ModelError
from edgekd.pruning.channels import Channels, Shapes
from edgekd.pruning.importance import Scores
from edgekd.pruning.meters import Meter
from edgekd.pruning.shares import Shares

# How much is removed is searched to this precision; widths change in far coarser steps.
_PRECISION = 1 / 128


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
        kept: the remaining fraction of what the target is in.
        widths: of every convolution and linear layer.
        whole: the layers that could not be narrowed, with the reason.
    """

    model: nn.Module
    shapes: Shapes
    kept: float
    widths: tuple[Width, ...]
    whole: Mapping[str, str]


def prune_channels(
    channels: Channels,
    *,
    meter: Meter,
    target: float,
    shares: Shares,
    scores: Scores,
    absolute: bool = False,
    shown: Callable[[int, int], None] | None = None,
) -> PrunedNetwork:
    """The widest network that keeps at most `target` by `meter`; its least important channels are missing.

    Where it is measured, the search ends within the meter's tolerance, and a network is never taken that a wider one
    with less of it was found for. The logits keep their number.

    Args:
        channels: of the network.
        meter: what the target is in.
        target: fraction to keep, above 0 and below 1.
        shares: how much of what is removed falls to each part.
        scores: the importance of the channels.
        absolute: whether messages state the target in the meter's unit.
        shown: called with the number of networks tried, and of all.

    Raises:
        ModelError: the target is out of reach, or a narrower network does not run.
        ExportError, BenchError, BackendError: a narrower network cannot be measured.
    """
    tried: list[tuple[float, float, Shapes]] = []

    def keeps(strength: float) -> float:
        shapes = channels.narrowed(shares.units(strength))
        kept = meter.kept(channels, shapes)
        tried.append((strength, kept, shapes))
        return kept

    halvings = math.ceil(-math.log2(_PRECISION))
    if shown is not None:
        shown(0, halvings + 1)
    refuse_unreachable(channels, keeps(1.0), meter, target, absolute=absolute)
    low, high = 0.0, 1.0
    for number in range(1, halvings + 1):
        if shown is not None:
            shown(number, halvings + 1)
        middle = (low + high) / 2
        kept = keeps(middle)
        low, high = (low, middle) if kept <= target else (middle, high)
        if target * (1.0 - meter.tolerance) <= kept <= target:
            break
    met = [each for each in tried if each[1] <= target]
    # Where the narrowest one is only within the tolerance, none meets the target itself.
    _, kept, shapes = min(met, key=lambda each: each[0]) if met else min(tried, key=lambda each: each[1])
    narrow = channels.pruned(shapes, scores)
    return PrunedNetwork(narrow, shapes, kept, widths(channels.model, narrow), channels.whole)


def narrowest(channels: Channels, meter: Meter) -> float:
    """The fraction that the smallest network keeps. Raises as Meter.kept()."""
    return meter.kept(channels, channels.narrowed([part.counts(channels.multiple)[0] for part in channels.parts]))


def refuse_unreachable(
    channels: Channels, least: float, meter: Meter, target: float, *, absolute: bool = False
) -> None:
    """Raises ModelError where `least`, what the smallest network keeps, is more than the target.

    Args:
        channels: of the network.
        least: a fraction, as the target.
        meter: what they are in.
        target: that is to be reached.
        absolute: whether the message states them in the meter's unit.
    """
    if least <= target * (1.0 + meter.tolerance):
        return
    wanted, lowest, highest = f"{target:g} of", f"{least:.3f}", "1"
    if absolute:
        whole = meter.base(channels)
        wanted, lowest = f"{target * whole:g} {meter.unit} for", f"{least * whole:.3g} {meter.unit}"
        highest = f"{whole:.3g} {meter.unit}"
    unknown = channels.flow.unknown
    raise ModelError(
        f"the pruning target {wanted} the {meter.title} is out of reach",
        found=f"{lowest} remains where every layer keeps only {channels.multiple} channels, or all of fewer"
        + (f"; layers are left whole whose channels meet {', '.join(unknown[:4])}" if unknown else ""),
        allowed=f"{lowest} to {highest}",
        hint="use a smaller prune.multiple, or a student with more layers and channels",
    )


def widths(model: nn.Module, narrow: nn.Module) -> tuple[Width, ...]:
    """Of every convolution and linear layer, in the network's order."""
    after = dict(narrow.named_modules())
    return tuple(
        Width(name, layer.weight.shape[0], after[name].weight.shape[0])
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )
