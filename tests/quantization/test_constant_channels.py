"""Channels that no image changes go into the next layer's bias; the network's answers stay."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import nn

from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, without_fused_branches
from edgekd.quantization.constant_channels import ConstantChannels, fold_constants
from edgekd.quantization.placement import folded, freeze, observe, place
from edgekd.runtime.preprocess import InputShape


def _images(count=32):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _network(*between, padding=0, groups=1, second=None):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), second or nn.Conv2d(8, 8, 3, padding=padding, groups=groups)
    return nn.Sequential(first, *between, second)


@torch.no_grad()
def _set(layer, channel, *, weight, bias):
    layer.weight[channel].mul_(weight)
    layer.bias[channel] = bias


def _folds(model, channels):
    """The network after folding that many channels; its outputs stay within rounding."""
    network, images = folded(model), _images()
    with torch.no_grad():
        expected = network(images)
        done = fold_constants(network, images)
        assert done.channels == channels and done.difference <= 1e-6
        torch.testing.assert_close(network(images), expected, rtol=1e-6, atol=1e-6)
    return network


def test_a_constant_goes_into_the_bias_of_an_unpadded_layer():
    model = _network(nn.ReLU())
    _set(model[0], 2, weight=1e-9, bias=3.0)
    network = _folds(model, 1)
    first, second = network.get_submodule("0"), network.get_submodule("2")
    assert not first.weight[2].any() and first.bias[2] == 0 and not second.weight[:, 2].any()
    by_hand = model[2].bias + 3.0 * model[2].weight[:, 2].sum((1, 2))
    torch.testing.assert_close(second.bias, by_hand)
    assert torch.equal(first.weight[3], model[0].weight[3]) and torch.equal(second.weight[:, 3], model[2].weight[:, 3])


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.Hardswish(), nn.SiLU(), nn.Sigmoid(), nn.LeakyReLU(0.1)])
def test_the_constant_is_what_the_activation_makes_of_the_bias(activation):
    model = _network(activation)
    _set(model[0], 2, weight=0.0, bias=-1.5)
    _folds(model, 1)


def test_zero_padding_has_another_value_than_the_constant():
    model = _network(nn.ReLU(), padding=1)
    _set(model[0], 2, weight=1e-9, bias=3.0)
    _folds(model, 0)


def test_a_dead_channel_is_zero_and_so_is_the_padding():
    model = _network(nn.ReLU(), padding=1)
    _set(model[0], 2, weight=1e-3, bias=-0.5)  # never above 0, whatever the image
    _set(model[0], 5, weight=1e-20, bias=0.0)
    _set(model[0], 6, weight=1.0, bias=-0.5)  # alive
    network = _folds(model, 2)
    assert not network.get_submodule("2").weight[:, [2, 5]].any()


def test_weights_that_can_lift_a_channel_above_zero_are_left():
    model = _network(nn.ReLU(), padding=1)
    _set(model[0], 2, weight=0.1, bias=-0.5)  # on these images it is always below 0
    with torch.no_grad():
        assert (model[0](_images())[:, 2] < 0).all()
    _folds(model, 0)


def test_without_a_relu_a_negative_channel_is_alive():
    model = _network(nn.Hardswish(), padding=1)
    _set(model[0], 2, weight=1e-3, bias=-0.5)
    _folds(model, 0)


def test_a_dead_channel_runs_on_through_a_depthwise_layer():
    torch.manual_seed(0)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), depthwise, nn.ReLU(), nn.Conv2d(8, 4, 1))
    _set(model[0], 2, weight=0.0, bias=-1.0)
    with torch.no_grad():
        depthwise.bias[2] = 0.7
    network = _folds(model, 2)
    torch.testing.assert_close(network.get_submodule("4").bias, model[4].bias + 0.7 * model[4].weight[:, 2, 0, 0])


def test_groups_read_their_own_channels():
    model = _network(nn.ReLU(), groups=2)
    _set(model[0], 6, weight=0.0, bias=2.0)
    network = _folds(model, 1)
    second = network.get_submodule("2")
    assert not second.weight[4:, 2].any() and torch.equal(second.weight[:4], model[2].weight[:4])


@pytest.mark.parametrize("head", [(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (nn.MaxPool2d(6), nn.Flatten())])
def test_pooled_channels_go_into_a_linear_layer(head):
    model = _network(nn.ReLU(), *head, second=nn.Linear(8, 5))
    _set(model[0], 2, weight=0.0, bias=2.0)
    _folds(model, 1)


class _Mean(nn.Module):
    def __init__(self, dims, linear):
        super().__init__()
        self.first, self.linear, self.dims = nn.Conv2d(3, 6, 3), linear, dims

    def forward(self, x):
        return self.linear(torch.relu(self.first(x)).mean(self.dims))


def test_a_mean_over_the_image_and_no_other():
    for dims, channels in (((2, 3), 1), ([-1, -2], 1), ((1, 2), 0)):
        model = _Mean(dims, nn.Linear(6, 4))
        _set(model.first, 2, weight=0.0, bias=2.0)
        _folds(model, channels)


class _Shared(nn.Module):
    """A value with two readers, and a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.left(torch.relu(self.left(x) + self.right(x)))


def test_what_others_read_too_is_left():
    model = _Shared()
    _set(model.first, 1, weight=0.0, bias=2.0)
    _set(model.left, 1, weight=0.0, bias=2.0)
    _folds(model, 0)


def test_a_layer_without_a_bias_takes_zeros_only():
    model = _network(nn.ReLU(), second=nn.Conv2d(8, 8, 3, bias=False))
    _set(model[0], 1, weight=0.0, bias=2.0)
    _set(model[0], 2, weight=0.0, bias=-2.0)
    network = _folds(model, 1)
    assert not network.get_submodule("2").weight[:, 2].any() and network.get_submodule("2").bias is None


def test_a_tiny_channel_that_is_read_with_huge_weights_is_alive():
    model = _network(nn.ReLU())
    with torch.no_grad():
        model[0].weight[2].mul_(1e-15)
        model[0].bias[2] = 0.0
        model[2].weight[:, 2].mul_(1e15)
    _folds(model, 0)


def test_where_the_outputs_would_change_the_network_stays_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():  # of the second layer's outputs, the last makes the smallest one the largest
        model[0].weight[2].mul_(1e-12)
        model[0].bias[2] = 0.0
        model[2].weight[0].zero_()
        model[2].weight[0, 2] = 1.0
        model[2].bias[0] = 0.0
        model[4].weight[:, 0] = 1e13
    network = folded(model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    done = fold_constants(network, _images())
    assert done.channels == 0 and done.difference > 1e-6 and "its outputs differ by" in done.refused
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert fold_constants(folded(_network(nn.ReLU())), _images()) == ConstantChannels(0, 0.0)


class _Float32(nn.Sequential):
    def forward(self, x):
        return super().forward(x.float())


def test_a_network_that_insists_on_float32_is_left_as_it_is():
    model = _Float32(*_network(nn.ReLU()))
    _set(model[0], 2, weight=0.0, bias=2.0)
    done = fold_constants(folded(model), _images())
    assert done.channels == 0 and "cannot be compared in float64" in done.refused


@torch.no_grad()
def _in_int8(network, images):
    quantized = place(network).model
    observe(quantized)
    quantized(images)
    freeze(quantized)
    return quantized.eval()


@torch.no_grad()
def _with_dead_channels():
    """As training leaves them: in every layer, one channel has nothing but a bias of 3, one of -3, and one nothing.

    The classifier's biases are such that the image decides.
    """
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
    ]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    for layer in (model[0], model[2], model[4]):
        for channel, value in ((0, 3.0), (1, -3.0), (2, 0.0)):
            layer.weight[channel] *= 1e-10
            layer.bias[channel] = value
    model[8].bias.sub_(model(IMAGES).mean(0))
    return folded(model)


IMAGES = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_int8_has_its_steps_for_the_channels_that_matter():
    plain, network = _with_dead_channels(), _with_dead_channels()
    # The three of each layer, but for the depthwise one whose input is folded and whose bias is 0: nothing is left.
    assert fold_constants(network, IMAGES[:32]).channels == 8
    expected = plain(IMAGES)
    errors = [float((_in_int8(each, IMAGES)(IMAGES) - expected).norm() / expected.norm()) for each in (plain, network)]
    assert errors[0] > 5 * errors[1]


def test_both_int8_graphs_keep_every_answer_as_written_and_as_optimized():
    network = _with_dead_channels()
    with torch.no_grad():
        expected = network(IMAGES)
    clear = expected.topk(2).values.diff(dim=1)[:, 0] < -0.1 * expected.abs().max()
    assert clear.sum() > 100 and len(expected[clear].argmax(1).unique()) == 5
    assert fold_constants(network, IMAGES[:32]).channels == 8
    pairs = graph_of(with_constant_scales(_in_int8(network, IMAGES)), InputShape(3, 8, 8), 17)
    for graph in (with_float_weights(without_fused_branches(pairs)), integer_graph(pairs)):
        for as_written in ("1", "0"):
            options = onnxruntime.SessionOptions()
            options.add_session_config_entry("session.disable_quant_qdq", as_written)
            session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
            found = torch.from_numpy(session.run(None, {"input": IMAGES.numpy()})[0])
            assert (found.argmax(1) == expected.argmax(1))[clear].all()
