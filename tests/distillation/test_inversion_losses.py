"""What DeepInversion minimises, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.distillation.inversion_losses import reading_gaps, statistics_gap, total_variation


def test_the_gap_of_statistics_by_hand():
    features = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]], [[[4.0, 6.0]], [[1.0, 1.0]]]])
    # Channel 0: mean 3, variance 5; channel 1: mean 1, variance 0.
    gap = statistics_gap(features, torch.tensor([0.0, -3.0]), torch.tensor([2.0, 4.0]))
    assert gap.item() == pytest.approx(5.0 + 5.0)
    assert statistics_gap(features, torch.tensor([3.0, 1.0]), torch.tensor([5.0, 0.0])).item() == 0.0


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    assert total_variation(image).item() == (4 + 9) / 2 + (1 + 4) / 2 + 16 + 1


def test_gaps_are_recorded_only_inside_the_block():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    images = torch.randn(2, 3, 5, 5)
    before = [value.clone() for value in network.state_dict().values()]
    with pytest.raises(KeyError), reading_gaps(network) as gaps:
        network(images)
        assert len(gaps) == 1
        raise KeyError
    network(images)
    assert len(gaps) == 1
    assert all(map(torch.equal, before, network.state_dict().values()))
