"""The whole way from a float network to int8, with every calibration method."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.quantization.calibration import AUTO
from edgekd.quantization.calibrators import METHODS
from edgekd.quantization.placement import activation_quantizers
from edgekd.quantization.post_training import post_training


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.deep, self.deep_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.narrow = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.stem(x)))
        x = x + self.narrow(F.relu6(self.deep_norm(self.deep(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return _Net().eval()


@pytest.mark.parametrize("method", [AUTO, *METHODS])
def test_every_method_keeps_what_the_network_computes(method, network, images):
    before = copy.deepcopy(network.state_dict())
    made = post_training(network, images[::4], images.split(16), method)
    with torch.no_grad():
        expected, found = network(images), made.quantized.model(images)
    assert float((found - expected).square().mean() / expected.square().mean()) < 0.001
    assert sum(made.methods.values()) == len(made.quantized.placed) == 6
    assert method in (AUTO, *made.methods) and made.corrected == 4
    assert all(quantizer.frozen for quantizer in activation_quantizers(made.quantized.model).values())
    assert not made.quantized.model.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_order_of_batches_has_no_influence(network, images):
    batches = images.split(16)
    one = post_training(network, images[::4], batches, AUTO).quantized.model.state_dict()
    other = post_training(network, images[::4], reversed(batches), AUTO).quantized.model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
