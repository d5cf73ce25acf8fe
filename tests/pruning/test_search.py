"""The search takes the widest network that meets the target, also where a measurement is not monotonous."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from pruned import prune
from torch import nn

from edgekd.errors import ModelError
from edgekd.pruning.channels import Channels, Shapes
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 8, 8)


@dataclass
class Scale:
    """A scale that tells what it is told to, by the width of the one layer that can be narrowed."""

    by_width: dict[int, float]
    tolerance: float = 0.05
    title: str = "latency"
    unit: str = "ms"
    asked: list[int] = field(default_factory=list)

    def kept(self, channels: Channels, shapes: Shapes) -> float:
        self.asked.append(shapes["0.weight"][0] if shapes else 64)
        return self.by_width[self.asked[-1]]

    def base(self, channels: Channels) -> float:
        return 2.5


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)).eval()


def _linear() -> dict[int, float]:
    return {width: width / 64 for width in range(8, 72, 8)}


def test_a_measurement_within_the_tolerance_ends_the_search():
    scale = Scale(_linear())
    found = prune(_network(), 0.51, SHAPE, meter=scale)
    assert found.kept == 0.5 and found.widths[0].after == 32
    assert scale.asked == [8, 32]


def test_a_narrower_network_that_is_slower_is_not_taken_where_a_wider_one_meets_the_target():
    # 24 channels are slower than 32 and 40, as on an engine that wants multiples of 32.
    scale = Scale({**_linear(), 8: 0.3, 16: 0.35, 24: 0.6, 32: 0.45, 40: 0.52, 48: 0.7})
    found = prune(_network(), 0.55, SHAPE, meter=scale)
    assert found.widths[0].after == 40 and found.kept == 0.52


def test_the_narrowest_is_taken_where_only_it_is_within_the_tolerance():
    found = prune(_network(), 0.5, SHAPE, meter=Scale(dict.fromkeys(range(16, 72, 8), 0.9) | {8: 0.51}))
    assert found.widths[0].after == 8 and found.kept == 0.51


def test_a_latency_out_of_reach_is_refused_with_what_is_in_reach():
    with pytest.raises(ModelError, match=r"target 0.4 of the latency is out of reach") as caught:
        prune(_network(), 0.4, SHAPE, meter=Scale(dict.fromkeys(range(8, 72, 8), 0.8)))
    assert caught.value.allowed == "0.800 to 1"
    with pytest.raises(ModelError, match=r"target 1 ms for the latency is out of reach") as caught:
        prune(_network(), 0.4, SHAPE, meter=Scale(dict.fromkeys(range(8, 72, 8), 0.8)), absolute=True)
    assert caught.value.allowed == "2 ms to 2.5 ms"
