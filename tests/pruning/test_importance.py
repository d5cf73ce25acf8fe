"""A channel's score is the mean of its squared weights' sums, each layer's divided by their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.pruning.flow import Site, trace
from edgekd.pruning.importance import batch_norm, group_norm, magnitude, taylor
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


def _two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    nn.init.normal_(network[1].weight)
    return network


def _of_first(network: nn.Sequential, scores, flow) -> list[float]:
    return [scores[channel] for channel in flow.sites[Site("0.weight", 0)].tolist()]


def test_magnitude_is_that_of_the_weights_that_compute_a_channel():
    network = _two_layers()
    flow = trace(network, InputShape(3, 8, 8))
    norms = network[0].weight.double().abs().sum((1, 2, 3))
    assert _of_first(network, magnitude(network, flow), flow) == pytest.approx(
        (norms / norms.mean()).tolist(), rel=1e-5
    )


def test_batch_norm_scales_score_where_they_are():
    network = _two_layers()
    flow = trace(network, InputShape(3, 8, 8))
    scales = network[1].weight.double().abs()
    found = batch_norm(network, flow)
    assert _of_first(network, found, flow) == pytest.approx((scales / scales.mean()).tolist(), rel=1e-5)
    nn.init.ones_(network[1].weight)
    with pytest.raises(ModelError, match="do not tell this network's channels apart"):
        batch_norm(network, flow)


def test_taylor_by_finite_differences_of_the_loss():
    network = _two_layers().double()
    flow = trace(network.float(), InputShape(3, 8, 8))
    network.double()
    images, labels = torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])

    def loss(model: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(model(images), labels)

    found = taylor(network, flow, lambda model: [loss(model)])
    weight, expected = network[0].weight, []
    for channel in range(6):
        total = 0.0
        for place in np.ndindex(*weight.shape[1:]):
            with torch.no_grad():
                value, step = float(weight[(channel, *place)]), 1e-6
                weight[(channel, *place)] = value + step
                above = float(loss(network))
                weight[(channel, *place)] = value - step
                below = float(loss(network))
                weight[(channel, *place)] = value
            total += abs(value * (above - below) / (2 * step))
        expected.append(total)
    assert _of_first(network, found, flow) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("factor", "found"), [(0.0, "all of them are zero"), (float("nan"), "not finite")])
def test_gradients_that_say_nothing_are_refused(factor, found):
    network = _two_layers()
    flow = trace(network, InputShape(3, 8, 8))
    with pytest.raises(ModelError, match="gradients do not tell its channels apart") as caught:
        taylor(network, flow, lambda model: [(model(torch.ones(1, 3, 8, 8)) * factor).sum()])
    assert found in str(caught.value.found)
