"""Removes channels with torch-pruning: the widest network that meets a target, with widths rounded to a multiple."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.cost import cost
from edgekd.runtime.preprocess import InputShape

_WEIGHTED = (nn.Conv2d, nn.Linear)
# The pruning ratio is searched to this precision; widths change in far coarser steps.
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
        history: torch-pruning's own list, which its dependency graph can replay on a fresh network.
        kept: the remaining fraction of MACs or parameters, whichever the target is in.
        widths: of every convolution and linear layer.
    """

    model: nn.Module
    history: list[tuple[str, bool, list[int]]]
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

    Every layer loses the same fraction of its channels, those with the smallest norm over all layers that they are
    coupled with (Fang et al. 2023, "DepGraph", section 3.3), but keeps at least `multiple`. The output layer keeps its
    width.

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
    best = check_reachable(model, measure=measure, target=target, multiple=multiple, shape=shape)
    original = cost(model, shape)[measure]
    low, high, halvings = 0.0, 1.0, math.ceil(-math.log2(_PRECISION))
    for tried in range(1, halvings + 1):
        if shown is not None:
            shown(tried, halvings + 1)
        middle = (low + high) / 2
        candidate = _pruned(model, middle, measure=measure, original=original, multiple=multiple, shape=shape)
        if candidate.kept <= target:
            high, best = middle, candidate
        else:
            low = middle
    return best


def check_reachable(
    model: nn.Module, *, measure: str, target: float, multiple: int, shape: InputShape
) -> PrunedNetwork:
    """The smallest network that prune_channels() can make. Args as there.

    Raises:
        ModelError: this network cannot be pruned, or not as far as `target`.
    """
    original = cost(model, shape)[measure]
    narrowest = _pruned(model, 1.0, measure=measure, original=original, multiple=multiple, shape=shape)
    if narrowest.kept > target:
        raise ModelError(
            f"the pruning target {target:g} of the {measure} is out of reach",
            found=f"{narrowest.kept:.3f} remains where every layer keeps only {multiple} channels, or all of fewer",
            allowed=f"{narrowest.kept:.3f} to 1",
            hint="use a smaller prune.multiple, or a student with more layers and channels",
        )
    return narrowest


def _pruned(
    model: nn.Module, share: float, *, measure: str, original: int, multiple: int, shape: InputShape
) -> PrunedNetwork:
    """A copy in which every layer loses a fraction `share` of its channels, but keeps at least `multiple`."""
    own = copy.deepcopy(model).eval().cpu()
    example = torch.zeros(1, *shape)
    before = dict(_widths(own))
    # The half avoids a rounding in torch-pruning that would remove all channels of a layer; it then removes none.
    shares: dict[nn.Module, float] = {
        layer: min(share, max(0.0, 1.0 - (multiple + 0.5) / _width(layer)))
        for layer in own.modules()
        if isinstance(layer, _WEIGHTED)
    }
    history = _remove_channels(own, example, shares, multiple)
    after = dict(_widths(own))
    _check(own, model, example, before, after, multiple)
    return PrunedNetwork(
        own,
        history,
        cost(own, shape)[measure] / original,
        tuple(Width(name, before[name], after[name]) for name in before),
    )


def _remove_channels(
    model: nn.Module, example: Tensor, shares: dict[nn.Module, float], multiple: int
) -> list[tuple[str, bool, list[int]]]:
    """Prune in place, and return torch-pruning's history."""
    try:
        with warnings.catch_warnings(), torch.enable_grad():  # dependencies are traced through autograd
            # It warns about parameters outside layers, which it leaves unchanged; _check verifies the result.
            warnings.simplefilter("ignore", UserWarning)
            pruner = torch_pruning.pruner.BasePruner(
                model,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=0.0,
                pruning_ratio_dict=shares,
                round_to=multiple,
                ignored_layers=[_last_layer(model, example)],
            )
            pruner.step()
    # torch-pruning traces the network's own code, which may raise anything.
    except Exception as error:
        # What it raises is about its own arithmetic; the cause stays in the chain of exceptions.
        raise _unprunable(model, "torch-pruning cannot tell which of its channels belong together") from error
    history: list[Any] = pruner.DG.pruning_history()
    return [(str(layer), bool(outputs), [int(channel) for channel in channels]) for layer, outputs, channels in history]


def _check(
    pruned: nn.Module,
    model: nn.Module,
    example: Tensor,
    before: dict[str, int],
    after: dict[str, int],
    multiple: int,
) -> None:
    """Raises ModelError unless the pruned network runs, has the same output shape, and widths that are multiples."""
    try:
        with torch.no_grad():
            found, expected = pruned(example).shape, model.cpu().eval()(example).shape
    # A wrongly pruned network fails in its own code, which may raise anything.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _unprunable(model, f"the pruned network does not run: {reason}") from error
    if found != expected:
        raise _unprunable(model, f"the pruned network's output is {tuple(found)}, not {tuple(expected)}")
    odd = [name for name in after if after[name] != before[name] and after[name] % multiple]
    if odd:
        raise _unprunable(
            model, f"{len(odd)} layers' widths are not multiples of {multiple}, e.g. {odd[0]}: {after[odd[0]]}"
        )


def _unprunable(model: nn.Module, found: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} cannot be pruned",
        found=found,
        allowed="e.g. MobileNetV2 and V3, MNASNet, SqueezeNet, ResNet",
        hint="remove the prune section, or take a student whose layers torch-pruning can trace",
    )


def _last_layer(model: nn.Module, example: Tensor) -> nn.Module:
    """The layer that computes the logits: the last one to run."""
    ran: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda own, _inputs, _output: ran.append(own))
        for layer in model.modules()
        if isinstance(layer, _WEIGHTED)
    ]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1]


def _widths(model: nn.Module) -> Iterator[tuple[str, int]]:
    for name, layer in model.named_modules():
        if isinstance(layer, _WEIGHTED):
            yield name, _width(layer)


def _width(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.weight.shape[0]
