"""Folding a batch norm changes no output in eval mode, and leaves trainable weights."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from edgekd.quantization.fold import fold_norms
from edgekd.quantization.placement import activation_quantizers, insert


def _lively(model: nn.Module) -> nn.Module:
    """With statistics, gains and offsets that a mistake would show in."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.running_var, module.weight):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.running_mean, module.bias):
                if values is not None:
                    nn.init.normal_(values)
    return model.eval()


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)),
        (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
        (nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)),
        (nn.ConvTranspose2d(3, 8, 2), nn.BatchNorm2d(8)),
    ],
)
def test_folded_is_equal(layers):
    model = _lively(nn.Sequential(*layers))
    images = torch.randn(2, 3, 8, 8)
    expected = model(images)
    network = fx.symbolic_trace(model)
    fold_norms(network)
    network.recompile()
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
    assert _norms(network) == 0
    assert all(parameter.requires_grad for parameter in network.parameters())


class _Shared(nn.Module):
    """Norms that cannot be folded: behind a convolution with another user, one that runs twice, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.free = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        x = self.conv(x)
        x = x + self.norm1(x)
        x = self.twice(self.norm2(self.twice(x)))
        return self.norm3(x + x)


def test_what_does_not_feed_a_norm_alone_is_left():
    model = _lively(_Shared())
    images = torch.randn(2, 3, 4, 4)
    expected = model(images)
    network = fx.symbolic_trace(model)
    fold_norms(network)
    network.recompile()
    assert _norms(network) == 3 and torch.equal(network(images), expected)


def test_a_norm_with_its_activation_leaves_the_activation():
    from edgekd.quantization.placement import insert

    model = _lively(nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormAct2d(8), nn.Conv2d(8, 4, 1)))
    quantized = insert(model)
    assert _norms(quantized.model) == 0 and quantized.left_in_float == {}
    assert quantized.placed == ("input_1", "_1_act")


def test_a_convolution_that_changes_its_weight_keeps_its_norm():
    """StdConv2d standardises its weight, which would undo what was folded into it; Conv2dSame only pads."""
    standard = _lively(nn.Sequential(StdConv2d(3, 8, 3), nn.BatchNorm2d(8)))
    padded = _lively(nn.Sequential(Conv2dSame(3, 8, 3, stride=2), nn.BatchNorm2d(8)))
    images = torch.randn(2, 3, 9, 9)
    for model, norms in ((standard, 1), (padded, 0)):
        expected = model(images)
        found = insert(model)
        assert _norms(found.model) == norms and tuple(found.left_in_float) == (("0", "1") if norms else ())
        for quantizer in activation_quantizers(found.model).values():
            quantizer.forward = lambda values: values
        parametrized = [layer for layer in found.model.modules() if is_parametrized(layer)]
        assert len(parametrized) == 1 - norms
        for layer in parametrized:
            remove_parametrizations(layer, "weight", leave_parametrized=False)
        torch.testing.assert_close(found.model(images), expected)
