"""Prunes a network by one call, for tests."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgekd.pruning.channels import Channels
from edgekd.pruning.importance import group_norm
from edgekd.pruning.meters import Counted
from edgekd.pruning.search import PrunedNetwork, prune_channels
from edgekd.pruning.shares import Uniform
from edgekd.runtime.preprocess import InputShape


def prune(network: nn.Module, target: float, shape: InputShape, *, multiple: int = 8, **options: Any) -> PrunedNetwork:
    """To a fraction of its MACs, every layer by the same fraction, by the group norm unless `options` say otherwise."""
    channels = Channels.of(network, shape, multiple)
    rules = {
        "meter": Counted("macs"),
        "shares": Uniform(channels.parts, multiple),
        "scores": group_norm(channels.model, channels.flow),
    }
    return prune_channels(channels, target=target, **{**rules, **options})
