"""Which channels may be rescaled, and that rescaling them changes no output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.channels.rescaling import Rescaling, rescale, trace
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.placement import folded
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 8, 8)
NETWORKS = {
    "cifar/resnet20": 1.0,
    "torchvision/resnet18": 1.0,
    "torchvision/shufflenet_v2_x0_5": 1.0,
    "torchvision/squeezenet1_1": 1.0,
    "torchvision/mnasnet0_5": 1.0,
    "torchvision/vgg11": 1.0,
    "torchvision/mobilenet_v2": 0.08,  # ReLU6 fixes what lies within the blocks
    "torchvision/mobilenet_v3_small": 0.1,
    "timm/regnety_002": 0.5,
}


class _Two(nn.Module):
    """Two convolutions of the image, combined by a function, and a third one behind."""

    def __init__(self, combine, width: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.c = nn.Conv2d(width, 2, 1)
        self.gain = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.prelu = nn.PReLU(4)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.combine(self, self.a(x), self.b(x)))


def _free(rescaling: Rescaling, layer: str) -> int:
    return len(rescaling.free.intersection(rescaling.layers[f"{layer}.weight"].outputs.tolist()))


@torch.no_grad()
def _outputs_before_and_after(network: nn.Module, shape: InputShape, spread: float = 100.0) -> tuple[Tensor, Tensor]:
    network.eval()
    images = torch.randn(4, *shape)
    before = network(images)
    rescaling = trace(network, shape)
    rng = np.random.default_rng(0)
    factors = {channel: float(spread ** rng.uniform(-1, 1)) for channel in sorted(rescaling.free)}
    rescale(network, rescaling, factors)
    return before, network(images)


@pytest.mark.parametrize(
    ("combine", "a", "b"),
    [
        (lambda own, a, b: F.relu(a) + b, 4, 4),
        (lambda own, a, b: a.clamp(min=0) + b.clamp_min_(0), 4, 4),
        (lambda own, a, b: F.leaky_relu(a, 0.1) - own.prelu(b), 4, 4),
        (lambda own, a, b: a * torch.sigmoid(b), 4, 0),
        (lambda own, a, b: torch.sigmoid(b) * a, 4, 0),
        (lambda own, a, b: a / (b.abs() + 1.0), 4, 0),
        (lambda own, a, b: own.gain * a * 0.5 + F.pad(b[:, :3], (0, 0, 0, 0, 1, 0)), 4, 3),
        (lambda own, a, b: torch.maximum(F.max_pool2d(a, 3, 1, 1), F.avg_pool2d(b, 3, 1, 1)), 4, 4),
        # Where these are not homogeneous, the channels that meet are fixed.
        (lambda own, a, b: F.relu6(a) + F.relu(b), 0, 0),
        (lambda own, a, b: a.clamp(0, 1) + b.clamp_min(-1), 0, 0),
        (lambda own, a, b: F.hardswish(a) + 0.0 * b, 0, 0),
        (lambda own, a, b: a * b, 0, 0),
        (lambda own, a, b: (a + 1.0) + b, 0, 0),
        (lambda own, a, b: (a + own.gain) + b, 0, 0),
        (lambda own, a, b: a.softmax(1) + b, 0, 0),
        (lambda own, a, b: F.pad(a[:, :3], (0, 0, 0, 0, 1, 0), value=1.0) + b, 0, 0),
        (lambda own, a, b: F.batch_norm(a, torch.zeros(4), torch.ones(4)) + 0.0 * b, 0, 0),
    ],
)
def test_channels_are_free_where_every_operator_is_homogeneous(combine, a, b):
    torch.manual_seed(0)
    network = _Two(combine).eval()
    rescaling = trace(network, SHAPE)
    assert (_free(rescaling, "a"), _free(rescaling, "b"), _free(rescaling, "c")) == (a, b, 0)
    before, after = _outputs_before_and_after(network, SHAPE)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_the_layers_of_a_residual_stream_are_rescaled_together():
    network = nn.Sequential(_Two(lambda own, a, b: F.relu(a + b)), nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    layers = trace(network, SHAPE).layers
    stream = layers["0.a.weight"].outputs.tolist()
    assert layers["0.b.weight"].outputs.tolist() == layers["0.c.weight"].read.tolist() == stream


def test_the_two_sides_of_a_grouped_convolution_have_channels_of_their_own():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 2, 1)).eval()
    grouped = trace(network, SHAPE).layers["1.weight"]
    a, b, c, d = trace(network, SHAPE).layers["0.weight"].outputs.tolist()
    assert grouped.inputs.tolist() == [[a, b]] * 3 + [[c, d]] * 3
    assert not {a, b, c, d}.intersection(grouped.outputs.tolist())
    before, after = _outputs_before_and_after(network, SHAPE)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_layer_that_runs_twice_has_one_factor_on_both_sides():
    shared = nn.Conv2d(4, 4, 1)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.ReLU(), shared, nn.Conv2d(4, 2, 1)).eval()
    before, after = _outputs_before_and_after(network, SHAPE)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert len(trace(network, SHAPE).free) == 4


# VGG-11 has 130 million weights behind its flattened maps.
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name == "torchvision/vgg11" else ()) for name in NETWORKS]
)
def test_a_rescaled_network_answers_as_before(name):
    torch.manual_seed(0)
    network = folded(build(Architecture(model=name, num_classes=10)))
    shape = InputShape(3, 64, 64)
    layers = trace(network, shape)
    computed = [label for layer in layers.layers.values() for label in layer.outputs.tolist()][:-10]
    assert np.isin(computed, list(layers.free)).mean() >= NETWORKS[name]
    before, after = _outputs_before_and_after(network, shape)
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
