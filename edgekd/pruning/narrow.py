"""Narrowing a network by torch-pruning: the widest one that meets a target, changed widths on a device's multiple."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.cost import cost

_WEIGHTED = (nn.Conv2d, nn.Linear)
# The share that is cut is searched to this; widths move in steps far coarser than that.
_PRECISION = 1 / 128


@dataclass(frozen=True)
class Width:
    """A layer's output channels before and after."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True)
class Narrowed:
    """A network with fewer channels.

    Attributes:
        history: torch-pruning's own list, which its dependency graph can replay on a fresh network.
        kept: what is left of the measure that was asked for, as a share.
        widths: of every convolution and linear layer.
    """

    model: nn.Module
    history: list[tuple[str, bool, list[int]]]
    kept: float
    widths: tuple[Width, ...]


def narrow(model: nn.Module, *, measure: str, target: float, multiple: int, image_size: int) -> Narrowed:
    """The widest copy of `model` with at most `target` of its MACs or parameters.

    Every layer loses the same share of its channels, those with the smallest weights over all layers that they are
    coupled with (Fang et al. 2023, "DepGraph", section 3.3), but keeps at least `multiple`. The outputs stay.

    Args:
        model: its first weighted layer takes (B, 3, image_size, image_size).
        measure: "macs" or "parameters".
        target: share to keep, above 0 and below 1.
        multiple: widths that change become multiples of this.

    Raises:
        ModelError: this network cannot be pruned, or the target is out of reach.
    """
    best = check_reachable(model, measure=measure, target=target, multiple=multiple, image_size=image_size)
    was = cost(model, image_size)[measure]
    low, high = 0.0, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        found = _cut(model, middle, measure=measure, was=was, multiple=multiple, image_size=image_size)
        if found.kept <= target:
            high, best = middle, found
        else:
            low = middle
    return best


def check_reachable(model: nn.Module, *, measure: str, target: float, multiple: int, image_size: int) -> Narrowed:
    """The narrowest copy that narrow() could give. Args as there.

    Raises:
        ModelError: this network cannot be pruned, or not as far as `target`.
    """
    was = cost(model, image_size)[measure]
    narrowest = _cut(model, 1.0, measure=measure, was=was, multiple=multiple, image_size=image_size)
    if narrowest.kept > target:
        raise ModelError(
            f"the pruning target {target:g} of the {measure} is out of reach",
            found=f"{narrowest.kept:.3f} is left where every layer has {multiple} channels, or what it had if fewer",
            allowed=f"{narrowest.kept:.3f} to 1",
            hint="a smaller prune.multiple, or a student with more layers and channels to spare, gets lower",
        )
    return narrowest


def _cut(model: nn.Module, share: float, *, measure: str, was: int, multiple: int, image_size: int) -> Narrowed:
    """Every layer without `share` of its channels, as far as it keeps `multiple` of them."""
    own = copy.deepcopy(model).eval().cpu()
    example = torch.zeros(1, 3, image_size, image_size)
    before = dict(_widths(own))
    # The half keeps rounding in the library from taking a layer's last channels, upon which it would leave all of them.
    shares: dict[nn.Module, float] = {
        layer: min(share, max(0.0, 1.0 - (multiple + 0.5) / _width(layer)))
        for layer in own.modules()
        if isinstance(layer, _WEIGHTED)
    }
    history = _step(own, example, shares, multiple)
    after = dict(_widths(own))
    _check(own, model, example, before, after, multiple)
    return Narrowed(
        own,
        history,
        cost(own, image_size)[measure] / was,
        tuple(Width(name, before[name], after[name]) for name in before),
    )


def _step(
    model: nn.Module, example: Tensor, shares: dict[nn.Module, float], multiple: int
) -> list[tuple[str, bool, list[int]]]:
    """Prune in place; the history."""
    try:
        with warnings.catch_warnings(), torch.enable_grad():  # it reads the dependencies off autograd's graph
            # It warns of parameters that no layer owns, which stay as they are; _check sees what came of it.
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
    # torch-pruning traces the network's own code, and fails on what it does not know in any way that Python has.
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise _unprunable(model, f"torch-pruning fails on it with {type(error).__name__}: {said}") from error
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
    """What comes out must be a network that runs, answers in the same shape, and has the widths that were asked for."""
    try:
        with torch.no_grad():
            found, expected = pruned(example).shape, model.cpu().eval()(example).shape
    # As above: what was cut wrongly fails in the network's own code.
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise _unprunable(model, f"what is left does not run: {said}") from error
    if found != expected:
        raise _unprunable(model, f"what is left answers {tuple(found)}, not {tuple(expected)}")
    odd = [name for name in after if after[name] != before[name] and after[name] % multiple]
    if odd:
        raise _unprunable(
            model, f"{len(odd)} layers do not come out as multiples of {multiple}, e.g. {odd[0]}: {after[odd[0]]}"
        )


def _unprunable(model: nn.Module, found: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} cannot be pruned",
        found=found,
        allowed="e.g. MobileNetV2 and V3, MNASNet, SqueezeNet, ResNet",
        hint="leave the prune section out, or choose a narrower student",
    )


def _last_layer(model: nn.Module, example: Tensor) -> nn.Module:
    """The layer that gives the logits: the last one to run."""
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
