"""A part cut alone changes the answers as much as the network without it, and the network stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekd.pruning.channels import Channels
from edgekd.pruning.importance import group_norm
from edgekd.pruning.sensitivity import SHARES, Probes, scan
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 12, 12)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(1024, 5),
    )
    nn.init.normal_(network[1].bias)
    return network.eval()


def _scan(network: nn.Module, images: torch.Tensor, labels: torch.Tensor | None):
    channels = Channels.of(network, SHAPE, 1)
    correct = None if labels is None else lambda logits: logits.argmax(1) == labels
    scores = group_norm(channels.model, channels.flow)
    probes = Probes(list(images.split(4)), correct)
    before = copy.deepcopy(channels.model.state_dict())
    curves = scan(channels.model, channels.flow, channels.parts, scores, probes)
    assert all(torch.equal(before[name], tensor) for name, tensor in channels.model.state_dict().items())
    return channels, scores, curves


def test_errors_and_lost_accuracy_by_hand():
    network, images = _network(), torch.randn(10, *SHAPE)
    with torch.no_grad():
        whole = network(images).double()
    labels = whole.argmax(1)
    channels, scores, (first, second) = _scan(network, images, labels)
    assert (first.layers, first.channels, second.layers, second.channels) == (("0.weight",), 8, ("3.weight",), 16)
    assert first.shares == SHARES
    ranked = sorted(range(16), key=lambda place: scores[sorted(channels.parts[1].channels)[place]])
    for place, share in enumerate(SHARES):
        without = copy.deepcopy(network)
        with torch.no_grad():
            # Without a channel of the second convolution: its 64 pixels are not read.
            gone = torch.tensor(ranked[: round(16 * share)])
            without[6].weight.view(5, 16, 64)[:, gone] = 0.0
            logits = without(images).double()
        change, centred = logits - whole, whole - whole.mean(1, keepdim=True)
        error = ((change - change.mean(1, keepdim=True)) ** 2).sum() / (centred**2).sum()
        assert second.errors[place] == pytest.approx(float(error), rel=1e-4)
        assert second.lost[place] == pytest.approx(float((logits.argmax(1) != labels).double().mean()))
    assert list(second.errors) == sorted(second.errors)


def test_without_labels_only_the_change_is_known():
    _, _, curves = _scan(_network(), torch.randn(6, *SHAPE), None)
    assert all(curve.lost is None and curve.errors[-1] > 0.0 for curve in curves)
