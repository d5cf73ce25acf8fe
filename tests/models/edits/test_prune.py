from __future__ import annotations

import pytest
import torch
import torch_pruning
from small_networks import SMALL, save_small
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.cost import cost
from edgekd.runtime.preprocess import InputShape


def test_pruned_widths_are_rebuilt_from_the_manifest(tmp_path):
    model = build(SMALL).eval()
    example = torch.zeros(1, 3, 32, 32)
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    head = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 3]
    pruner = torch_pruning.pruner.MetaPruner(
        model, example, importance, pruning_ratio=0.5, ignored_layers=head, round_to=8
    )
    pruner.step()
    pruned = SMALL.edited({"edit": "prune", "history": pruner.pruning_history(), "input": [3, 32, 32]})
    saved = save_small(model, pruned, tmp_path / "c")
    assert saved.metrics["macs"] < cost(build(SMALL), InputShape(3, 32, 32))["macs"]
    again = checkpoints.load(Checkpoint.load(tmp_path / "c"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(images), again(images))


def test_a_pruning_history_of_another_network_is_refused():
    edit = {"edit": "prune", "history": [["features.99", True, [0]]], "input": [3, 32, 32]}
    with pytest.raises(ModelError, match=r"does not fit this network at features\.99"):
        build(SMALL.edited(edit))
