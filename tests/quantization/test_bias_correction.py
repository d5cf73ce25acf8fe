"""Biases move by what rounding shifts on average, by hand, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.quantization.bias_correction import correct_biases
from edgekd.quantization.placement import activation_quantizers, folded, freeze, place
from edgekd.quantization.quantizers import FINEST_INPUT


class _One(nn.Module):
    """One layer that reads the second column, with a ReLU behind it or not."""

    def __init__(self, *, bias: float | None = 0.0, relu: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=bias is not None)
        self.layer.weight = nn.Parameter(torch.tensor([[0.0, 1.0]]))
        if bias is not None:
            nn.init.constant_(self.layer.bias, bias)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return F.relu(x) if self.relu else x


def _quantized(model: nn.Module, amax: float = 127.0):
    """The float network, and in int8 with one range for all values."""
    reference = folded(model)
    quantized = place(copy.deepcopy(reference)).model
    for quantizer in activation_quantizers(quantized).values():
        quantizer.calibrate(amax)
    freeze(quantized)
    return reference, quantized


def test_a_bias_makes_up_for_what_both_grids_lack():
    # Steps of 1: 0.4 becomes 0. In uint8 steps of 127/255: one step.
    rows = torch.tensor([[127.0, 0.4], [3.0, 0.4]])
    reference, quantized = _quantized(_One())
    assert correct_biases(reference, quantized, {"x"}, rows.split(1)) == 1
    assert quantized.layer.bias.item() == pytest.approx(0.4 - (0 + 127 / 255) / 2)
    reference, quantized = _quantized(_One())
    correct_biases(reference, quantized, (), [rows])
    assert quantized.layer.bias.item() == pytest.approx(0.4)


def test_outputs_that_a_relu_cuts_do_not_count():
    rows = torch.tensor([[0.0, 5.4], [0.0, -90.6], [0.0, -30.6]])
    reference, quantized = _quantized(_One(relu=True))
    correct_biases(reference, quantized, (), [rows])
    assert quantized.layer.bias.item() == pytest.approx(0.4, abs=1e-5)
    reference, quantized = _quantized(_One(relu=True))
    correct_biases(reference, quantized, (), [rows[1:]])
    assert quantized.layer.bias.item() == 0.0


def test_a_layer_without_a_bias_or_run_twice_is_left_as_it_is():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    for model in (_One(bias=None), Twice()):
        reference, quantized = _quantized(model)
        before = copy.deepcopy(quantized.state_dict())
        assert correct_biases(reference, quantized, (), [torch.tensor([[1.0, 0.4]])]) == 0
        assert all(torch.equal(value, before[name]) for name, value in quantized.state_dict().items())


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.stem(x)), inplace=True)
        x = F.relu(self.up(x + self.deep(x)))
        return self.head(x.mean((2, 3)))


def test_the_mean_error_of_a_network_falls_and_the_float_one_stays_as_it_is():
    torch.manual_seed(0)
    reference, quantized = _quantized(_Net(), amax=12.0)
    before = copy.deepcopy(reference.state_dict())
    images = torch.randn(64, 3, 8, 8)
    with torch.no_grad():
        expected = reference(images)
        first = (quantized(images) - expected).mean(0)
        assert correct_biases(reference, quantized, (), images.split(16)) == 4
        after = (quantized(images) - expected).mean(0)
    assert float(after.norm()) < 0.5 * float(first.norm())
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())


def test_a_corrected_bias_still_fits_int32():
    rows = torch.tensor([[127.0, 0.4]])
    model = _One(bias=1e6)
    with torch.no_grad():
        model.layer.weight.mul_(1e-6)
    reference, quantized = _quantized(model)
    correct_biases(reference, quantized, (), [rows])
    held = quantized.layer.parametrizations["weight"]
    scale = held[0].scale(held.original)
    steps = quantized.layer.bias.detach() / (scale * quantized.quantizers.x.scale * FINEST_INPUT)
    assert float(steps.abs().max()) <= 2**30 * (1 + 1e-6)
