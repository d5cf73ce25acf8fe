"""The grids: known numbers, scales from maxima, and gradients that go straight through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError
from edgekd.quantization.quantizers import ActivationQuantizer, WeightQuantizer


def _on_grid(values: np.ndarray, amax: np.ndarray) -> np.ndarray:
    """Quantize-dequantize in double precision, written anew."""
    scale = np.where(amax > 0, amax, 1.0) / 127.0
    return np.clip(np.rint(values / scale), -128, 127) * scale


def _fixed(amax: float) -> ActivationQuantizer:
    quantizer = ActivationQuantizer("value")
    quantizer(torch.tensor([amax]))
    return quantizer.eval()


def test_known_numbers_land_on_the_grid():
    # amax 12.7 makes steps of 0.1; halves go to the even step, and the range is -12.8 … 12.7.
    values = torch.tensor([0.0, 0.04, 0.06, 0.26, -3.14, 12.7, 13.0, -12.8, -99.0])
    expected = torch.tensor([0.0, 0.0, 0.1, 0.3, -3.1, 12.7, 12.7, -12.8, -12.8])
    torch.testing.assert_close(_fixed(12.7)(values), expected)


def test_halves_go_to_the_even_step():
    assert _fixed(127.0)(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0.0, 2.0, 2.0, 0.0, -2.0]


def test_the_range_is_a_running_mean_of_absolute_maxima():
    quantizer = ActivationQuantizer("value")
    for batch in ([-4.0, 1.0], [2.0, 0.0], [0.5, 8.0]):
        quantizer(torch.tensor(batch))
    expected = 0.95 * (0.95 * 4.0 + 0.05 * 2.0) + 0.05 * 8.0
    assert quantizer.amax.item() == pytest.approx(expected)
    assert quantizer.scale.item() == pytest.approx(expected / 127)


@pytest.mark.parametrize("still", [ActivationQuantizer.eval, ActivationQuantizer.freeze])
def test_in_eval_mode_and_frozen_nothing_is_observed(still):
    quantizer = ActivationQuantizer("value")
    quantizer(torch.tensor([1.0]))
    still(quantizer)
    assert quantizer(torch.tensor([5.0])).item() == pytest.approx(128 / 127 * 127 / 128)
    assert quantizer.amax.item() == 1.0


def test_a_range_that_is_set_is_used():
    quantizer = ActivationQuantizer("value")
    quantizer.calibrate(12.7)
    assert quantizer.eval()(torch.tensor([0.26, 99.0])).tolist() == pytest.approx([0.3, 12.7])


def test_nothing_seen_is_refused_by_name():
    quantizer = ActivationQuantizer("features_0_0")
    with pytest.raises(ModelError, match="quantizer of features_0_0 has seen no values"):
        quantizer.freeze()
    with pytest.raises(ModelError, match="features_0_0"):
        quantizer.eval()(torch.ones(1))


def test_all_zeros_stay_zeros():
    quantizer = ActivationQuantizer("value")
    assert quantizer(torch.zeros(4)).tolist() == [0.0] * 4
    assert quantizer.scale.item() > 0


def test_gradients_go_straight_through_inside_the_range_and_stop_outside():
    values = torch.tensor([0.03, -1.0, 1.0, 1.1, -1.1], requires_grad=True)
    _fixed(1.0)(values).sum().backward()
    assert values.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (nn.Conv2d(3, 5, 3), 0),
        (nn.Conv2d(6, 6, 3, groups=6), 0),
        (nn.Linear(7, 4), 0),
        (nn.ConvTranspose2d(3, 5, 2), 1),
    ],
)
def test_weights_are_quantized_by_output_channel(layer, axis):
    with torch.no_grad():
        layer.weight.select(axis, 1).zero_()
    weight = layer.weight.detach().double().numpy()
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    amax = np.abs(weight).max(axis=others, keepdims=True)
    parametrize.register_parametrization(layer, "weight", WeightQuantizer(axis))
    found = layer.weight.detach().numpy()
    np.testing.assert_allclose(found, _on_grid(weight, amax), rtol=1e-5, atol=1e-7)
    assert np.all(found.take(1, axis) == 0.0)


def test_a_channels_scale_leaves_room_for_its_int32_bias():
    layer, seen = nn.Linear(2, 3), _fixed(0.127)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1e-9, -1e-9], [0.127, 0.0], [0.0, 0.0]]))
        layer.bias.copy_(torch.tensor([-3.0, 3.0, 0.0]))
    quantizer = WeightQuantizer()
    quantizer.fit_bias(layer, [_fixed(12.7), seen])
    parametrize.register_parametrization(layer, "weight", quantizer)
    finest = 0.001 * 127 / 255  # of the two inputs' scales, in the graph with uint8 activations
    found = quantizer.scale(layer.parametrizations.weight.original)
    torch.testing.assert_close(found[:2], torch.tensor([3.0 / finest / 2**30, 0.001]))
    assert 0 < found[2] < 1e-6
    with torch.no_grad():  # training changes both
        layer.bias.copy_(torch.tensor([6.0, 0.0, 0.0]))
        seen.amax.mul_(0.5)
    assert quantizer.scale(layer.weight)[0].item() == pytest.approx(12.0 / finest / 2**30)


def test_the_groups_of_a_transposed_convolution_share_the_room_for_their_biases():
    layer = nn.ConvTranspose2d(4, 6, 2, groups=2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 9.0, -8.0, 0.0]))
    quantizer = WeightQuantizer(axis=1)
    quantizer.fit_bias(layer, [_fixed(0.127)])
    step = 0.001 * 127 / 255 * 2**30
    torch.testing.assert_close(quantizer.scale(layer.weight), torch.tensor([9.0, 8.0, 3.0]) / step)


def test_every_weight_has_its_gradient():
    layer = nn.Linear(3, 2, bias=False)
    parametrize.register_parametrization(layer, "weight", WeightQuantizer())
    layer(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert layer.parametrizations.weight.original.grad.tolist() == [[1.0, 2.0, 3.0]] * 2
