from __future__ import annotations

from torch import nn

from edgekd.recipe.settings import TrainSettings
from edgekd.training.optimiser import make_optimiser


def test_only_matrices_and_filters_are_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, plain = make_optimiser((model,), TrainSettings(weight_decay=0.1), 0.1).param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4} and decayed["weight_decay"] == 0.1
    assert {p.ndim for p in plain["params"]} == {1} and plain["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2).requires_grad_(False)
    head = nn.Linear(2, 2)
    groups = make_optimiser((model, head), TrainSettings(), 0.1).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
