from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekd.errors import NonFiniteLossError, UsageError
from edgekd.recipe.settings import TrainSettings
from edgekd.training import host
from edgekd.training.average import Average
from edgekd.training.guard import Guard
from edgekd.training.host import has_depthwise, resolve_precision
from edgekd.training.norms import raise_momentum
from edgekd.training.optimiser import make_optimiser
from edgekd.training.schedule import learning_rate


def test_the_schedule_by_hand():
    rates = [learning_rate(step, peak=1.0, total=12, warmup=2) for step in range(13)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.2)))
    assert rates[12] == pytest.approx(0.0)


def test_only_matrices_and_filters_are_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, plain = make_optimiser((model,), TrainSettings(weight_decay=0.1)).param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4} and decayed["weight_decay"] == 0.1
    assert {p.ndim for p in plain["params"]} == {1} and plain["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2).requires_grad_(False)
    head = nn.Linear(2, 2)
    groups = make_optimiser((model, head), TrainSettings()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_the_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(model, step=0)  # decay (1 + 0) / (10 + 0)
    average.update(model, step=1000)  # decay 0.5
    assert average.network.weight.item() == pytest.approx(0.9 + 0.5 * 0.1)


def test_depthwise_networks_train_in_single_precision_on_a_cpu():
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    cpu = torch.device("cpu")
    assert has_depthwise(depthwise) and resolve_precision("auto", depthwise, cpu) == "fp32"
    assert resolve_precision("bf16", depthwise, cpu) == "bf16"


def test_the_guard_remembers_the_first_bad_step():
    guard = Guard(torch.device("cpu"), epoch=0, first_step=1)
    guard._on_cpu = False  # as on a GPU, where the check comes late
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    for step, value in enumerate([good, good, bad, good, bad], start=1):
        guard.watch(step, value)
    with pytest.raises(NonFiniteLossError, match=r"step 4 (?s:.)*none: it happened in the first epoch"):
        guard.check()


def test_batch_norms_forget_the_start_of_a_short_training_and_long_ones_are_left_alone():
    slow, usual = nn.BatchNorm2d(2, momentum=0.01), nn.BatchNorm2d(2, momentum=0.1)
    model = nn.Sequential(slow, usual)
    raise_momentum(model, steps=100_000)
    assert (slow.momentum, usual.momentum) == (0.01, 0.1)
    raise_momentum(model, steps=400)
    assert (slow.momentum, usual.momentum) == (0.05, 0.1)
    assert (1 - slow.momentum) ** 400 < 1e-8


@pytest.mark.parametrize(("side", "trains_in"), [(8, "fp32"), (16, "bf16")])
def test_a_stride_larger_than_its_input_is_not_trained_in_bf16_on_a_cpu(monkeypatch, side, trains_in):
    """PyTorch leaves such a convolution's weight gradient unwritten."""
    monkeypatch.setattr(host, "cpu_has_bf16", lambda: True)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten())
    cpu = torch.device("cpu")
    assert host.training_precision("auto", model, cpu, side) == trains_in
    if trains_in == "fp32":
        with pytest.raises(UsageError, match="wrong gradients on a CPU for 1"):
            host.training_precision("bf16", model, cpu, side)
    assert host.training_precision("fp32", model, cpu, side) == "fp32"
