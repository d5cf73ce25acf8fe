from __future__ import annotations

import pytest
import torch

from edgekd.models.sources import cifar


def convolutions(widths: list[int]) -> int:
    """Weights of 3x3 convolutions between these widths, and one scale and one shift per channel behind each."""
    return sum(9 * before * after + 2 * after for before, after in zip(widths, widths[1:], strict=False))


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_parameters_by_hand(name, blocks):
    """Shortcuts without parameters: 0.27 and 0.85 million, as in table 6 of the paper."""
    pairs = 2 * blocks
    expected = convolutions([3, *[16] * (1 + pairs), *[32] * pairs, *[64] * pairs]) + 64 * 10 + 10
    network = cifar.build(name, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == expected
    assert round(expected / 1e6, 2) == {"resnet20": 0.27, "resnet56": 0.85}[name]


def test_wider_ones_project_and_halve_the_image_twice():
    network = cifar.build("resnet8x4", num_classes=7).eval()
    sides = []
    for stage in (network.layer1, network.layer2, network.layer3):
        stage.register_forward_hook(lambda _m, _i, out: sides.append(tuple(out.shape[1:])))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sides == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    assert network.layer2[0].shortcut[0].kernel_size == (1, 1)


def test_a_shortcut_without_parameters_takes_every_other_pixel_and_adds_zeros():
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    out = cifar._Pad(2)(x, 6)
    assert out.shape == (1, 6, 2, 2)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2]) and out[:, :2].abs().sum() + out[:, 4:].abs().sum() == 0


def test_nobody_publishes_weights():
    with pytest.raises(ValueError, match="no published weights"):
        cifar.build("resnet20", num_classes=10, pretrained=True)
    with pytest.raises(ValueError, match="cifar/resnet20"):
        cifar.published_classes("resnet20")
