"""A channel's score is the mean of its squared weights' sums, each layer's divided by their mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.pruning.flow import Site, trace
from edgekd.pruning.importance import group_norm
from edgekd.runtime.preprocess import InputShape


def test_the_group_norm_of_each_channel_by_an_independent_formula():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(96, 4)
    ).eval()
    nn.init.normal_(network[1].weight)
    flow = trace(network, InputShape(3, 8, 8))
    found = group_norm(network, flow)
    first, norm, depthwise, last = (network[place].weight.double() for place in (0, 1, 3, 5))
    layers = [
        first.pow(2).sum((1, 2, 3)),
        norm.pow(2),
        depthwise.pow(2).sum((1, 2, 3)),
        # Sixteen pixels per channel.
        last.pow(2).sum(0).reshape(6, 16).mean(1),
    ]
    expected = sum(layer / layer.mean() for layer in layers) / 4
    channels = flow.sites[Site("0.weight", 0)].tolist()
    assert [found[channel] for channel in channels] == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_layer_of_zeros_has_no_say():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    nn.init.zeros_(network[1].weight)
    flow = trace(network, InputShape(3, 4, 4))
    found = group_norm(network, flow)
    weight = network[0].weight.double().pow(2).sum((1, 2, 3))
    channels = flow.sites[Site("0.weight", 0)].tolist()
    assert [found[channel] for channel in channels] == pytest.approx((weight / weight.mean() / 2).tolist(), rel=1e-5)
