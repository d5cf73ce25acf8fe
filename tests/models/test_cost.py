from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.cost import cost
from edgekd.runtime.preprocess import InputShape


def test_macs_of_a_convolution_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert cost(model, InputShape(3, 16, 16)) == {"parameters": 8 * 27 + 8 + 45, "macs": 16 * 16 * 8 * 27 + 40}


@pytest.mark.parametrize(("name", "width"), [("resnet9", 64), ("resnet9x0.5", 32)])
def test_the_macs_of_resnet9_by_hand(name, width):
    """A stem, and five parts of equal work: three convolutions that widen, and two pairs that do not."""
    network = build(Architecture(model=f"cifar/{name}", num_classes=10))
    stem = 32 * 32 * 9 * 3 * width
    equal = 32 * 32 * 9 * width * 2 * width
    assert cost(network, InputShape(3, 32, 32))["macs"] == stem + 5 * equal + 8 * width * 10
    assert network.eval()(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
