from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekd.quantization.operations import (
    Effect,
    effect_of,
    is_identity,
    is_relu,
    keeps_float_weights,
    uses_weight_unchanged,
    weight_axis,
)


def last(function):
    """The last node before the output of a function's graph, and the graph."""
    module = nn.Module()
    module.conv, module.drop, module.norm = nn.Conv2d(3, 3, 1), nn.Dropout(), nn.BatchNorm2d(3)
    graph = fx.Tracer().trace(type("Net", (nn.Module,), {"forward": lambda self, x: function(self, x)})())
    network = fx.GraphModule(module, graph)
    return list(graph.nodes)[-2], network


@pytest.mark.parametrize(
    ("function", "effect"),
    [
        (lambda self, x: x, Effect.INPUT),
        (lambda self, x: x + x, Effect.COMPUTED),
        (lambda self, x: torch.add(x, x), Effect.COMPUTED),
        (lambda self, x: operator.iadd(x, x), Effect.COMPUTED),
        (lambda self, x: x.flatten(1), Effect.PRESERVED),
        (lambda self, x: F.max_pool2d(x, 2), Effect.PRESERVED),
        (lambda self, x: F.pad(x, (1, 1)), Effect.PRESERVED),
        (lambda self, x: F.pad(x, (1, 1), value=1.0), Effect.UNKNOWN),
        (lambda self, x: torch.fft.fft(x), Effect.UNKNOWN),
        (lambda self, x: x.size(0), Effect.NUMBER),
        (lambda self, x: x.shape, Effect.NUMBER),
        (lambda self, x: x.size(0) + x.size(1), Effect.NUMBER),
    ],
)
def test_what_comes_out_of_an_operation(function, effect):
    assert effect_of(*last(function)) is effect


def test_what_is_a_relu_and_what_is_gone_in_an_exported_network():
    assert is_relu(*last(lambda self, x: F.relu(x))) and not is_relu(*last(lambda self, x: torch.tanh(x)))
    assert is_identity(*last(lambda self, x: F.dropout(x))) and not is_identity(*last(lambda self, x: x.flatten(1)))


def test_weights_of_a_function_stay_in_float():
    assert keeps_float_weights(*last(lambda self, x: F.conv2d(x, x)))
    assert not keeps_float_weights(*last(lambda self, x: x + x))


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Padded(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


def test_a_layer_that_changes_its_weight_first_is_found():
    torch.manual_seed(0)
    assert uses_weight_unchanged(nn.Conv2d(3, 4, 3)) and uses_weight_unchanged(Padded(3, 4, 3))
    assert not uses_weight_unchanged(Standardised(3, 4, 3)) and not uses_weight_unchanged(nn.ReLU())


def test_output_channels_are_the_second_axis_of_a_transposed_convolution():
    assert weight_axis(nn.Conv2d(2, 3, 1)) == 0 and weight_axis(nn.ConvTranspose2d(2, 3, 1)) == 1
