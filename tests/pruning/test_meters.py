"""What narrower networks keep: counted, of their file, and of the time they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.models.cost import cost
from edgekd.pruning.channels import Channels
from edgekd.pruning.meters import Counted, FileSize, Latency
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 32, 32)


@pytest.fixture(scope="module")
def channels() -> Channels:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.ReLU(), nn.Conv2d(256, 64, 3)]
    return Channels.of(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)), SHAPE, 8)


def _quarter(channels: Channels):
    return channels.narrowed([part.unit // 4 for part in channels.parts])


def test_what_is_counted_is_what_the_narrower_network_costs(channels):
    narrow = channels.sample(_quarter(channels))
    for measure in ("macs", "parameters"):
        meter = Counted(measure)
        expected = cost(narrow, SHAPE)[measure] / cost(channels.model, SHAPE)[measure]
        assert meter.kept(channels, _quarter(channels)) == pytest.approx(expected)
        assert meter.base(channels) == cost(channels.model, SHAPE)[measure]


def test_the_file_is_written_and_weighed(channels, tmp_path: Path):
    meter = FileSize(tmp_path, 17)
    parameters = Counted("parameters").base(channels)
    # Four bytes each, and a graph of some kilobytes.
    assert 4 * parameters / 1e6 < meter.base(channels) < 4 * parameters / 1e6 + 0.02
    assert meter.kept(channels, _quarter(channels)) == pytest.approx(1 / 16, abs=0.03)
    assert meter.kept(channels, {}) == 1.0


def test_a_sixteenth_of_the_work_takes_less_than_half_of_the_time(channels, tmp_path: Path):
    meter = Latency(tmp_path, 17, threads=1)
    assert meter.kept(channels, _quarter(channels)) < 0.5
    comparison = meter.comparison(channels, _quarter(channels))
    assert comparison.milliseconds[1] < comparison.milliseconds[0]
    # Measured once, and kept.
    assert meter.comparison(channels, _quarter(channels)) is comparison
    assert meter.base(channels) > 0.0
