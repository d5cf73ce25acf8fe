"""How much each channel matters: torch-pruning's scores of the layers it runs through, added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.pruning.flow import CONSTANT, Flow, Labels, Site

_FUNCTIONS: dict[tuple[type[nn.Module], int], Any] = {
    (nn.Conv2d, 0): torch_pruning.prune_conv_out_channels,
    (nn.Conv2d, 1): torch_pruning.prune_conv_in_channels,
    (nn.Linear, 0): torch_pruning.prune_linear_out_channels,
    (nn.Linear, 1): torch_pruning.prune_linear_in_channels,
    (nn.modules.batchnorm._BatchNorm, 0): torch_pruning.prune_batchnorm_out_channels,
}


Scores = dict[int, float]
Losses = Callable[[nn.Module], Iterable[Tensor]]


def group_norm(model: nn.Module, flow: Flow) -> Scores:
    """The group norm of each channel: the mean, over the layers that it runs through, of its squared weights.

    Each layer's scores are divided by their mean, so that none outweighs the others (Fang et al. 2023, "DepGraph",
    section 3.3).

    Args:
        model: the network.
        flow: its channels.

    Returns:
        By channel.
    """
    scorer = torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer="mean")
    return _scores(model, flow.sites, scorer)


def magnitude(model: nn.Module, flow: Flow) -> Scores:
    """The sum of the absolute weights that compute each channel (Li et al. 2017, "Pruning Filters for Efficient
    ConvNets", section 3.1), relative to the layer's mean. Args and result as group_norm().
    """
    scorer = torch_pruning.importance.GroupMagnitudeImportance(p=1, group_reduction="sum", normalizer="mean")
    return _scores(model, _outputs(model, flow, nn.Conv2d, nn.Linear), scorer)


def batch_norm(model: nn.Module, flow: Flow) -> Scores:
    """The absolute scale that batch norms give each channel (Liu et al. 2017, "Network Slimming", section 3).

    Channels without a batch norm are scored by group_norm(). Args and result as there.

    Raises:
        ModelError: no channel goes through a batch norm with a scale, or their scales are all equal.
    """
    scorer = torch_pruning.importance.BNScaleImportance(group_reduction="sum", normalizer="mean")
    found = _scores(model, _outputs(model, flow, nn.modules.batchnorm._BatchNorm), scorer)
    if max(found.values(), default=1.0) - min(found.values(), default=1.0) < 1e-6:
        raise ModelError(
            "batch-norm scales do not tell this network's channels apart",
            found="all of them are equal" if found else "no batch norm with a scale behind channels that can go",
            allowed="group-norm, magnitude or taylor",
            hint="set prune.importance",
        )
    return {**group_norm(model, flow), **found}


def taylor(model: nn.Module, flow: Flow, losses: Losses) -> Scores:
    """How much the loss would change without each channel, to first order: |weight x gradient|, summed over its
    weights (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8).

    Args:
        model: the network; its gradients are overwritten.
        flow: its channels.
        losses: from the network to its loss on each of several batches.

    Returns:
        By channel.

    Raises:
        ModelError: the gradients are not finite, or all zero.
    """
    scorer = torch_pruning.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None)
    gradients = _gradients(model, losses)
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    if not finite or not any(bool(gradient.any()) for gradient in gradients):
        raise ModelError(
            "the network's gradients do not tell its channels apart",
            found="all of them are zero" if finite else "some of them are not finite",
            allowed="group-norm, magnitude or batch-norm",
            hint="set prune.importance",
        )
    found = _scores(model, _outputs(model, flow, nn.Conv2d, nn.Linear), scorer)
    model.zero_grad()
    return found


def _gradients(model: nn.Module, losses: Losses) -> list[Tensor]:
    """Those of all parameters, zero where the loss does not depend on one."""
    for parameter in model.parameters():
        parameter.requires_grad_(True).grad = torch.zeros_like(parameter)
    with torch.enable_grad():
        for loss in losses(model):
            loss.backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _outputs(model: nn.Module, flow: Flow, *kinds: type[nn.Module]) -> dict[Site, Labels]:
    """The sites at which layers of these kinds put channels out."""
    modules = dict(model.named_modules())
    return {
        site: labels
        for site, labels in flow.sites.items()
        if site.dim == 0 and isinstance(modules[site.tensor.rpartition(".")[0]], kinds)
    }


def _scores(model: nn.Module, sites: Mapping[Site, Labels], scorer: Any) -> Scores:
    sums: dict[int, float] = defaultdict(float)
    layers: dict[int, set[Site]] = defaultdict(set)
    modules = dict(model.named_modules())
    for site, labels in sites.items():
        for channel, score in _of_layer(modules, site, labels, scorer).items():
            sums[channel] += score
            layers[channel].add(site)
    return {channel: total / len(layers[channel]) for channel, total in sums.items()}


def _of_layer(modules: Mapping[str, nn.Module], site: Site, labels: Labels, scorer: Any) -> dict[int, float]:
    name, _, own = site.tensor.rpartition(".")
    module = modules[name]
    function = next(
        (each for (kind, dim), each in _FUNCTIONS.items() if isinstance(module, kind) and dim == site.dim), None
    )
    if own != "weight" or function is None:
        return {}
    scores: Tensor | None = scorer(_Group(_Dependency(module, function), list(range(len(labels)))))
    if scores is None:
        return {}
    # The mean, so that a layer in which a channel has many positions, pixels or a group's, has no more say.
    positions: dict[int, list[float]] = defaultdict(list)
    for label, score in zip(labels.tolist(), torch.nan_to_num(scores.double()).tolist(), strict=True):
        if label != CONSTANT:
            positions[label].append(score)
    return {label: sum(each) / len(each) for label, each in positions.items()}


@dataclass(frozen=True)
class _Dependency:
    """A layer and how it is pruned, under the names that torch-pruning's scores read."""

    layer: nn.Module
    pruning_fn: Any

    @property
    def target(self) -> _Target:
        return _Target(self.layer)

    @property
    def handler(self) -> Any:
        return self.pruning_fn


@dataclass(frozen=True)
class _Target:
    module: nn.Module


@dataclass(frozen=True)
class _Item:
    dep: _Dependency
    idxs: list[int]

    @property
    def root_idxs(self) -> list[int]:
        return self.idxs

    def __iter__(self) -> Any:
        return iter((self.dep, self.idxs))


class _Group(list[_Item]):
    """What torch-pruning scores, of one layer alone."""

    def __init__(self, dependency: _Dependency, positions: list[int]) -> None:
        super().__init__([_Item(dependency, positions)])
