"""Channels are followed through whatever moves, joins or splits them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.pruning.flow import CONSTANT, Flow, Site, trace
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 8, 8)


def _at(flow: Flow, tensor: str, dim: int) -> list[int]:
    return [int(label) for label in flow.sites[Site(tensor, dim)]]


def test_a_channel_runs_from_the_layer_that_begins_it_to_those_that_read_it():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()
    flow = trace(network, SHAPE)
    channels = _at(flow, "0.weight", 0)
    assert len(set(channels)) == 4
    for tensor in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert _at(flow, tensor, 0) == channels
    assert _at(flow, "3.weight", 1) == channels
    assert not set(_at(flow, "3.weight", 0)) & set(channels)
    # The image's channels and the logits' are not to be removed.
    assert flow.kept == {*_at(flow, "0.weight", 1), *_at(flow, "3.weight", 0)}


class _Two(nn.Module):
    """Two convolutions of the image, combined by a function, and a third one behind."""

    def __init__(self, combine, width: int, wide: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, wide, 1)
        self.c = nn.Conv2d(width, 2, 1)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.combine(self.a(x), self.b(x)))


def _shuffled(a: Tensor, b: Tensor) -> Tensor:
    x = torch.cat([a, b], 1)
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


@pytest.mark.parametrize(
    ("combine", "width", "expected"),
    [
        (lambda a, b: a + b, 4, "a0 a1 a2 a3"),
        (lambda a, b: a * torch.sigmoid(b), 4, "a0 a1 a2 a3"),
        (lambda a, b: F.relu6(a).add_(F.hardswish(b)), 4, "a0 a1 a2 a3"),
        (lambda a, b: torch.cat([a, F.max_pool2d(b, 3, 1, 1)], 1), 8, "a0 a1 a2 a3 b0 b1 b2 b3"),
        (_shuffled, 8, "a0 b0 a1 b1 a2 b2 a3 b3"),
        (lambda a, b: _shuffled(a, b).chunk(2, 1)[1], 4, "a2 b2 a3 b3"),
        (lambda a, b: a.flip(1) + b, 4, "a3 a2 a1 a0"),
        (lambda a, b: a[:, 1:3], 2, "a1 a2"),
        (lambda a, b: a[:, [3, 1]], 2, "a3 a1"),
        (lambda a, b: a.index_select(1, torch.tensor([2, 0])), 2, "a2 a0"),
        (lambda a, b: F.pad(a, (0, 0, 0, 0, 1, 1)), 6, "- a0 a1 a2 a3 -"),
    ],
)
def test_what_reaches_the_next_layer(combine, width, expected):
    flow = trace(_Two(combine, width).eval(), SHAPE)
    names = {label: f"{layer}{place}" for layer in "ba" for place, label in enumerate(_at(flow, f"{layer}.weight", 0))}
    names[CONSTANT] = "-"
    assert " ".join(names[label] for label in _at(flow, "c.weight", 1)) == expected


def test_channels_that_are_added_are_one_and_so_is_a_gate():
    flow = trace(_Two(lambda a, b: a + b, 4).eval(), SHAPE)
    assert _at(flow, "a.weight", 0) == _at(flow, "b.weight", 0)


def test_padding_joins_nothing():
    """The zeros of a parameter-free shortcut leave the channels that they are added to on their own."""
    flow = trace(_Two(lambda a, b: F.pad(a, (0, 0, 0, 0, 1, 1)) + b, 6, wide=6).eval(), SHAPE)
    a, b = _at(flow, "a.weight", 0), _at(flow, "b.weight", 0)
    assert b[1:5] == a and not {b[0], b[5]} & set(a)


def test_a_group_of_a_convolution_is_one_channel():
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 2, 1)).eval()
    flow = trace(network, SHAPE)
    channels = _at(flow, "0.weight", 0)
    assert len(set(channels[:3])) == len(set(channels[3:])) == 1 and channels[0] != channels[3]
    assert _at(flow, "1.weight", 0) == _at(flow, "2.weight", 1) == channels
    assert Site("1.weight", 1) not in flow.sites


def test_flattened_maps_are_as_many_positions_of_their_channel():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 64, 5)).eval()
    flow = trace(network, SHAPE)
    a, b = _at(flow, "0.weight", 0)
    assert _at(flow, "2.weight", 1) == [a] * 64 + [b] * 64
    assert set(_at(flow, "2.weight", 0)) == set(_at(flow, "2.bias", 0)) <= flow.kept


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x) * self.scale)


def test_a_parameter_that_scales_channels_has_them():
    flow = trace(_Scaled().eval(), SHAPE)
    assert _at(flow, "scale", 0) == _at(flow, "a.weight", 0)


def test_a_layer_that_runs_twice_has_the_channels_of_both():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.b(self.a(x))))

    flow = trace(Twice().eval(), SHAPE)
    assert _at(flow, "a.weight", 0) == _at(flow, "b.weight", 0) == _at(flow, "b.weight", 1)


def test_what_mixes_channels_keeps_them_and_is_named():
    flow = trace(_Two(lambda a, b: a.softmax(1) + b, 4).eval(), SHAPE)
    assert set(_at(flow, "a.weight", 0)) <= flow.kept and flow.unknown == ("aten::_softmax",)
    assert not set(_at(flow, "b.weight", 0)) & flow.kept


def test_channels_of_a_tensor_that_is_cut_go_in_proportion():
    flow = trace(_Two(lambda a, b: _shuffled(a, b).chunk(2, 1)[1], 4).eval(), SHAPE)
    assert set(flow.tied) == {frozenset([*_at(flow, "a.weight", 0), *_at(flow, "b.weight", 0)])}
    assert trace(_Two(lambda a, b: a[:, :, ::2] + b[:, :, 1::2], 4).eval(), SHAPE).tied == ()


def test_how_often_a_weight_is_applied():
    network = nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(), nn.Linear(18, 5)).eval()
    assert trace(network, SHAPE).positions == {"0.weight": 9, "1.weight": 9, "3.weight": 1}
