"""Equalization changes no output of the float network, and undoes whatever scales the channels happen to have."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.channels.rescaling import rescale, trace
from edgekd.quantization.equalize import equalize
from edgekd.quantization.placement import folded, freeze, observe, place
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 16, 16)


class _Net(nn.Module):
    """A residual stream with a depthwise convolution, batch norms and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.wide, self.wide_norm = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.depth, self.depth_norm = nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32)
        self.narrow, self.narrow_norm = nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        y = F.relu(self.wide_norm(self.wide(x)))
        y = F.relu(self.depth_norm(self.depth(y)))
        x = F.relu(x + self.narrow_norm(self.narrow(y)))
        return self.head(x.mean((2, 3)))


def _images(count: int = 64) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _network(spread: float = 1.0) -> nn.Module:
    """Folded, its channels rescaled by factors of up to `spread`."""
    torch.manual_seed(0)
    model = _Net()
    model.train()
    for _ in range(20):
        model(_images())
    network = folded(model)
    rescaling, rng = trace(network, SHAPE), np.random.default_rng(0)
    rescale(network, rescaling, {each: float(spread ** rng.uniform(-1, 1)) for each in sorted(rescaling.free)})
    return network


@torch.no_grad()
def _error_in_int8(network: nn.Module) -> float:
    """Of the outputs, relative to their size."""
    expected = network(_images())
    quantized = place(network).model
    observe(quantized)
    quantized(_images())
    freeze(quantized)
    return float((quantized.eval()(_images()) - expected).norm() / expected.norm())


def test_the_float_network_stays_the_same_and_int8_gets_finer():
    network = _network(spread=256.0)
    expected = network(_images())
    found = equalize(network, _images(8), [_images()])
    assert found.channels == 16 + 32 + 32 and found.refused is None and found.difference <= 1e-5
    assert (network(_images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_rescaled_network_quantizes_as_the_one_that_it_came_from():
    errors = {}
    for spread in (1.0, 64.0, 256.0):
        network = _network(spread)
        equalize(network, _images(8), [_images()])
        errors[spread] = _error_in_int8(network)
    assert _error_in_int8(_network(256.0)) > 10 * errors[1.0]
    assert max(errors.values()) < 1.05 * min(errors.values()) < 0.05


def test_the_order_and_the_size_of_the_batches_have_no_influence():
    images = _images()
    found = []
    for batches in ([images], list(images.flip(0).split(5))):
        network = _network(8.0)
        equalize(network, images[:8], batches)
        found.append(network.state_dict())
    assert all(torch.allclose(value, found[1][name], rtol=1e-5) for name, value in found[0].items())


def test_a_channel_that_is_never_used_does_not_coarsen_the_others():
    """Its weights in the next layer, however large, would set the scale of every row."""
    network = _network()
    with torch.no_grad():
        network.wide.weight[3].zero_()
        network.wide.bias[3] = -1.0
        network.depth.weight[5].zero_()
        network.depth.bias[5] = -1.0
        network.narrow.weight[:, 5] = 1e4
    expected = network(_images())
    assert equalize(network, _images(8), [_images()]).refused is None
    torch.testing.assert_close(network(_images()), expected, rtol=1e-4, atol=1e-5)
    rest = [channel for channel in range(32) if channel != 5]
    assert network.narrow.weight[:, 5].abs().max() <= 1.01 * network.narrow.weight[:, rest].abs().max()
    assert _error_in_int8(network) < 0.05


def test_tensors_keep_their_scale_as_a_whole():
    """Or a later training would take other steps."""
    network = _network()
    before = network.wide.weight.detach().abs().log().mean()
    equalize(network, _images(8), [_images()])
    assert abs(network.wide.weight.detach().abs().log().mean() - before) < 0.3


def test_a_network_that_does_not_stay_the_same_is_left_as_it_was():
    class Measures(nn.Module):
        """Depends on a channel's scale in a way that no operator shows."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x)).mean((2, 3))
            return self.b(x) + float(x.numpy()[:, 0].max())

    torch.manual_seed(0)
    network = Measures().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = equalize(network, _images(8), [_images()])
    assert found.channels == 0 and "its outputs differ by" in str(found.refused)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_without_free_channels_is_left_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(4 * 256, 2)).eval()
    found = equalize(network, _images(8), [_images()])
    assert found.channels == 0 and found.refused is None
