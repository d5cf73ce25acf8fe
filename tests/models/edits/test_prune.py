from __future__ import annotations

import pytest
import torch
from pruned import prune
from small_networks import SMALL, save_small
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.cost import cost
from edgekd.models.edits.prune import resize
from edgekd.runtime.preprocess import InputShape


def test_pruned_widths_are_rebuilt_from_the_manifest_also_when_pruned_twice(tmp_path):
    shape = InputShape(3, 32, 32)
    model, architecture = build(SMALL).eval(), SMALL
    for target in (0.6, 0.7):
        pruned = prune(model, target, shape, multiple=4)
        model = pruned.model
        architecture = architecture.edited({"edit": "prune", "shapes": {k: list(v) for k, v in pruned.shapes.items()}})
    saved = save_small(model, architecture, tmp_path / "c")
    assert saved.metrics["macs"] < 0.6 * 0.7 * cost(build(SMALL), shape)["macs"]
    again = checkpoints.load(Checkpoint.load(tmp_path / "c"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(images), again(images))


def test_layers_say_the_sizes_that_they_have():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8), nn.Linear(8, 2))
    network[0].weight.requires_grad_(False)
    shapes = {"0.weight": [6, 3, 1, 1], "0.bias": [6], "1.weight": [6, 2, 3, 3], "1.bias": [6], "3.weight": [2, 6]}
    resize(network, shapes | {f"2.{name}": [6] for name in ("weight", "bias", "running_mean", "running_var")})
    assert (network[0].in_channels, network[0].out_channels) == (3, 6) and not network[0].weight.requires_grad
    assert (network[1].in_channels, network[1].out_channels, network[1].groups) == (6, 6, 3)
    assert network[2].num_features == 6 and isinstance(network[2].running_mean, torch.Tensor)
    assert (network[3].in_features, network[3].out_features) == (6, 2)
    assert network[:3](torch.zeros(2, 3, 8, 8)).shape == (2, 6, 6, 6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("features.99.weight", [1]),
        ("features.0.0.weight", [4, 3, 3]),
        ("features.0.0.weight", [400, 3, 3, 3]),
        ("features.0.0.weight", [0, 3, 3, 3]),
        ("features.0.0.weight", [-4, 3, 3, 3]),
    ],
)
def test_the_pruning_of_another_network_is_refused(name, shape):
    with pytest.raises(ModelError, match=f"does not fit this network at {name}"):
        build(SMALL.edited({"edit": "prune", "shapes": {name: shape}}))


def test_an_earlier_version_is_refused_by_name():
    edit = {"edit": "prune", "history": [["features.0.0", True, [0]]], "input": [3, 32, 32]}
    with pytest.raises(ModelError, match=r"pruned by an earlier version(?s:.)*prune the student again"):
        build(SMALL.edited(edit))
