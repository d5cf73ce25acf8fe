from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.training.average import Average


def test_the_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(model, step=0)  # decay (1 + 0) / (10 + 0)
    average.update(model, step=1000)  # decay 0.5
    assert average.network.weight.item() == pytest.approx(0.9 + 0.5 * 0.1)


def test_each_update_is_a_linear_interpolation_bit_for_bit_and_buffers_are_copied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).to(memory_format=torch.channels_last)
    average = Average(model, 0.999)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    for step in range(20):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            model(torch.randn(2, 3, 8, 8))
        average.update(model, step)
        decay = min(0.999, (1 + step) / (10 + step))
        for own, new in zip(expected, model.parameters(), strict=True):
            own.lerp_(new.detach(), 1.0 - decay)
    assert all(torch.equal(own, found) for own, found in zip(expected, average.network.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in zip(model.buffers(), average.network.buffers(), strict=True))
