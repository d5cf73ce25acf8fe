"""What is read after an operation wrote over it, with and without quantizers between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.quantization.placement import folded, freeze, insert, observe


class _Net(nn.Module):
    def __init__(self, act) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(6, 6), nn.Linear(6, 6), act
        self.module = act if isinstance(act, nn.Module) else None

    def forward(self, x):
        x = self.one(x)
        return self.two(self.act(x)) + x * 2.0


ACTIVATIONS = [
    nn.Hardswish(inplace=True),
    nn.ReLU(inplace=True),
    lambda x: F.relu(x, True),
    lambda x: F.hardswish(x, inplace=True),
    lambda x: x.relu_(),
    lambda x: x.add_(1.0),
    nn.ReLU(),
    lambda x: F.relu(x),
]


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("keep", [(), ("mul",), ("two",)])
def test_others_read_what_was_written(act, keep):
    torch.manual_seed(0)
    model = _Net(act).eval()
    images = torch.randn(64, 6)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(folded(model)(images), expected)
        network = insert(model, keep).model
        observe(network)
        network(images)
        freeze(network)
        assert float((network.eval()(images) - expected).norm() / expected.norm()) < 0.02
