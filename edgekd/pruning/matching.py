"""Which channels of a network stand where in its narrowed copy, and the weights that follow from it.

Both networks are traced. A channel of the narrowed one is given a channel that goes through the same layers: through
the same branches of a split and as often. In most networks all channels of a layer do; where a shuffle sends the
channels of a layer on different ways, as in ShuffleNet, those that go the same way are interchangeable and no others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from edgekd.errors import ModelError
from edgekd.pruning.flow import CONSTANT, Flow, Labels, Site

_Way = tuple[tuple[Site, int], ...]


def match(full: Flow, narrow: Flow, importance: Mapping[int, float]) -> dict[int, int]:
    """For every channel of the narrowed network, the channel of the full one that it is.

    Args:
        full, narrow: the channels of both.
        importance: of the full network's channels; the highest remain, in their order.

    Raises:
        ModelError: a channel of the narrowed network goes a way that no remaining channel goes in part.
    """
    ways, narrow_ways = _ways(full), _ways(narrow)
    have, need = _by_way(ways), _by_way(narrow_ways)
    found: dict[int, int] = {}
    short: list[int] = []
    for way, wanted in need.items():
        ranked = sorted(have.get(way, []), key=lambda channel: (-importance.get(channel, 0.0), channel))
        chosen = sorted(ranked[: len(wanted)])
        found.update(zip(wanted, chosen, strict=False))
        short += wanted[len(chosen) :]
    free = set(ways) - set(found.values())
    for channel in short:
        found[channel] = _nearest(narrow_ways[channel], free, ways, importance)
        free.discard(found[channel])
    return found


def gathered(tensors: Mapping[str, Tensor], full: Flow, narrow: Flow, channels: Mapping[int, int]) -> dict[str, Tensor]:
    """The narrowed network's parameters and buffers.

    Args:
        tensors: the full network's.
        full, narrow: the channels of both.
        channels: from match().
    """
    where: dict[str, dict[int, Labels]] = defaultdict(dict)
    for site, labels in narrow.sites.items():
        where[site.tensor][site.dim] = _positions(full.sites[site], labels, channels)
    return {name: _selected(tensor, where.get(name, {})) for name, tensor in tensors.items()}


def _ways(flow: Flow) -> dict[int, _Way]:
    """The sites that each channel lies at, and in how many positions."""
    found: dict[int, list[tuple[Site, int]]] = defaultdict(list)
    for site in sorted(flow.sites, key=lambda site: (site.tensor, site.dim)):
        channels, counts = np.unique(flow.sites[site], return_counts=True)
        for channel, count in zip(channels.tolist(), counts.tolist(), strict=True):
            if channel != CONSTANT:
                found[channel].append((site, count))
    return {channel: tuple(sites) for channel, sites in found.items()}


def _by_way(ways: Mapping[int, _Way]) -> dict[_Way, list[int]]:
    found: dict[_Way, list[int]] = defaultdict(list)
    for channel in sorted(ways):
        found[ways[channel]].append(channel)
    return found


def _nearest(way: _Way, free: set[int], ways: Mapping[int, _Way], importance: Mapping[int, float]) -> int:
    """The free channel of the same layers that shares most of the way; narrowing rounds, so one may be missing."""
    begins = {site for site, _ in way if site.dim == 0}
    candidates = [channel for channel in free if {site for site, _ in ways[channel] if site.dim == 0} == begins]
    if not candidates:
        raise ModelError("the narrowed network has a channel for which none of the full network's can stand")
    sites = set(way)
    return max(
        sorted(candidates),
        key=lambda channel: (len(sites & set(ways[channel])) - len(sites ^ set(ways[channel])), importance[channel]),
    )


def _positions(full: Labels, narrow: Labels, channels: Mapping[int, int]) -> Labels:
    """For each position of the narrowed tensor the position in the full one; -1 where there is none."""
    places: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(full.tolist()):
        places[label].append(position)
    taken: dict[int, int] = defaultdict(int)
    found = []
    for label in narrow.tolist():
        origin = CONSTANT if label == CONSTANT else channels[label]
        nth, taken[origin] = taken[origin], taken[origin] + 1
        found.append(places[origin][nth] if nth < len(places[origin]) else -1)
    return np.array(found)


def _selected(tensor: Tensor, where: Mapping[int, Labels]) -> Tensor:
    for dim, positions in where.items():
        index = torch.from_numpy(positions)
        tensor = tensor.index_select(dim, index.clamp(min=0))
        if bool((index < 0).any()):
            tensor = tensor.index_fill(dim, torch.nonzero(index < 0).flatten(), 0)
    return tensor.clone()
