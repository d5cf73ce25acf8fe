from __future__ import annotations

import pytest
import torch
from pruned import prune
from small_networks import save_small
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.activation import RELU, with_relu
from edgekd.runtime.preprocess import InputShape

NETWORK = Architecture(model="torchvision/mobilenet_v3_small", num_classes=3, small_stem=True)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "replaced", "gates"),
    [
        ("torchvision/mobilenet_v3_small", 19, 9),
        ("timm/mobilenetv3_small_100", 19, 9),
        ("torchvision/efficientnet_b0", 49, 16),
        ("timm/lcnet_100", 28, 2),
    ],
)
def test_every_hard_swish_and_silu_is_replaced_and_the_gates_stay(name, replaced, gates):
    network = build(Architecture(model=name, num_classes=3))
    relus = sum(isinstance(module, nn.ReLU) for module in network.modules())
    assert with_relu(network) == replaced
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(nn.ReLU) == relus + replaced
    assert not {nn.Hardswish, nn.SiLU} & set(kinds)
    assert kinds.count(nn.Hardsigmoid) + kinds.count(nn.Sigmoid) == gates


@pytest.mark.parametrize(
    "name",
    ["torchvision/mobilenet_v3_small", "timm/mobilenetv3_small_050", "torchvision/efficientnet_b0", "timm/lcnet_050"],
)
def test_it_can_be_trained(name):
    """A dropout in place behind the classifier's hard-swish overwrites what a ReLU keeps for its gradient."""
    network = build(Architecture(model=name, num_classes=3).edited(dict(RELU))).train()
    network(IMAGES).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_module_that_stands_in_several_places_is_replaced_in_all():
    shared = nn.SiLU()
    network = nn.Sequential(nn.Conv2d(3, 3, 1), shared, nn.Sequential(shared))
    assert with_relu(network) == 2 and not any(isinstance(module, nn.SiLU) for module in network.modules())


@torch.no_grad()
def test_it_is_rebuilt_from_its_checkpoint_alone_also_when_it_was_pruned(tmp_path):
    architecture = NETWORK.edited(dict(RELU))
    network = build(architecture).eval()
    save_small(network, architecture, tmp_path / "whole")
    again = checkpoints.load(Checkpoint.load(tmp_path / "whole"))
    assert torch.equal(again(IMAGES), network(IMAGES))

    pruned = prune(network, 0.7, InputShape(3, 32, 32))
    shapes = {name: list(shape) for name, shape in pruned.shapes.items()}
    save_small(pruned.model, architecture.edited({"edit": "prune", "shapes": shapes}), tmp_path / "pruned")
    again = checkpoints.load(Checkpoint.load(tmp_path / "pruned"))
    assert not any(isinstance(module, nn.Hardswish) for module in again.modules())
    assert torch.equal(again(IMAGES), pruned.model.eval()(IMAGES))


def test_a_network_without_any_is_refused():
    with pytest.raises(ModelError, match="MobileNetV2 has no hard-swish and no SiLU") as caught:
        build(Architecture(model="torchvision/mobilenet_v2", num_classes=3).edited(dict(RELU)))
    assert "ReLU6" in str(caught.value) and "remove activation: relu" in str(caught.value)


def test_an_edit_of_another_version_is_refused():
    with pytest.raises(ModelError, match="activation of this checkpoint is not known"):
        build(NETWORK.edited({"edit": "activation", "activation": "gelu"}))
    with pytest.raises(ModelError, match="cannot be replayed"):
        build(NETWORK.edited({"edit": "activation"}))
