"""Targets are fractions or absolute, in one step or several, and what cannot be met is refused before training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.pruning.channels import Channels
from edgekd.pruning.meters import Counted
from edgekd.pruning.request import Request, check, share_of
from edgekd.recipe.settings import PruneTarget
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 16, 16)


def _network(norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    inner = [nn.BatchNorm2d(32)] if norm else []
    layers = [nn.Conv2d(3, 32, 3), *inner, nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5))


@pytest.mark.parametrize(
    ("importance", "labelled", "expected"),
    [("auto", True, "taylor"), ("auto", False, "group-norm"), ("magnitude", True, "magnitude")],
)
def test_auto_is_the_loss_where_there_are_labels(importance, labelled, expected):
    assert Request(PruneTarget(macs=0.5), 8, importance).decided(labelled=labelled).importance == expected


def test_steps_towards_a_fraction_multiply_to_it():
    channels, meter, kept = Channels.of(_network(), SHAPE, 1), Counted("macs"), 1.0
    for left in (3, 2, 1):
        # Each step reached a little less than it was to.
        kept *= share_of(PruneTarget(macs=0.5), meter, channels, kept, left) * (0.98 if left > 1 else 1.0)
    assert kept == pytest.approx(0.5)


def test_a_size_is_a_fraction_of_the_file_that_there_is(tmp_path):
    request = Request(PruneTarget(size_mb=0.05), 8)
    channels = Channels.of(_network(), SHAPE, 8)
    with request.meter() as meter:
        base = meter.base(channels)
        assert share_of(request.target, meter, channels) == pytest.approx(0.05 / base)
    with pytest.raises(ModelError, match="meets the target already") as caught:
        check(Request(PruneTarget(size_mb=10.0), 8), _network(), SHAPE)
    assert caught.value.found == f"size of the fp32 file {base:.3g} MB, target 10 MB"
    with pytest.raises(ModelError, match="target 0.001 MB for the size of the fp32 file is out of reach") as caught:
        check(Request(PruneTarget(size_mb=0.001), 8), _network(), SHAPE)
    least, most = str(caught.value.allowed).split(" to ")
    assert least.endswith(" MB") and 0.001 < float(least[:-3]) < base and most == f"{base:.3g} MB"
    assert str(caught.value.found).startswith(f"{least} remains")


def test_a_latency_out_of_reach_is_found_on_the_untrained_network():
    with pytest.raises(ModelError, match="target 1e-05 ms for the latency is out of reach"):
        check(Request(PruneTarget(latency_ms=1e-5), 8), _network(), SHAPE)


def test_batch_norm_scales_need_batch_norms():
    assert check(Request(PruneTarget(macs=0.5), 8, importance="batch-norm"), _network(), SHAPE) < 0.5
    with pytest.raises(ModelError, match="batch-norm scales cannot tell") as caught:
        check(Request(PruneTarget(macs=0.5), 8, importance="batch-norm"), _network(norm=False), SHAPE)
    assert caught.value.found == "no batch norm in Sequential"
