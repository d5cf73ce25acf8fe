from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.greyscale import to_greyscale


@pytest.mark.parametrize(
    "model",
    ["cifar/resnet8", "torchvision/mobilenet_v3_small", "torchvision/shufflenet_v2_x0_5", "timm/mobilenetv3_small_050"],
)
@torch.no_grad()
def test_a_grey_image_is_answered_as_three_equal_channels_were(model: str) -> None:
    torch.manual_seed(0)
    network = build(Architecture(model=model, num_classes=4)).eval()
    grey = torch.randn(2, 1, 32, 32)
    expected = network(grey.expand(2, 3, 32, 32))
    to_greyscale(network, model)
    assert torch.allclose(network(grey), expected, atol=1e-4)
    torch.manual_seed(0)
    rebuilt = build(Architecture(model=model, num_classes=4, channels=1)).eval()
    assert torch.equal(rebuilt(grey), network(grey))


def test_a_network_that_is_built_for_grey_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3))
    to_greyscale(network, "x/y")
    assert network[0].weight.shape == (4, 1, 3, 3)
    with pytest.raises(ModelError, match="no convolution takes three channels"):
        to_greyscale(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), "x/y")
