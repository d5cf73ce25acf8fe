"""How much each channel matters: torch-pruning's scores of the layers it runs through, added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgekd.pruning.flow import CONSTANT, Flow, Labels, Site

_FUNCTIONS: dict[tuple[type[nn.Module], int], Any] = {
    (nn.Conv2d, 0): torch_pruning.prune_conv_out_channels,
    (nn.Conv2d, 1): torch_pruning.prune_conv_in_channels,
    (nn.Linear, 0): torch_pruning.prune_linear_out_channels,
    (nn.Linear, 1): torch_pruning.prune_linear_in_channels,
    (nn.modules.batchnorm._BatchNorm, 0): torch_pruning.prune_batchnorm_out_channels,
}


def magnitude(model: nn.Module, flow: Flow) -> dict[int, float]:
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
    return _scores(model, flow, scorer)


def _scores(model: nn.Module, flow: Flow, scorer: Any) -> dict[int, float]:
    sums: dict[int, float] = defaultdict(float)
    layers: dict[int, set[Site]] = defaultdict(set)
    modules = dict(model.named_modules())
    for site, labels in flow.sites.items():
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
