"""A network whose output is not one logit per class is refused, with the argument that makes it so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd import pipeline
from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.logits import check_logits
from edgekd.recipe.load import from_mapping
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 32, 32)


def refused(model: str, arguments: dict[str, object], *, trained: bool = True) -> str:
    architecture = Architecture(model=model, arguments=arguments, num_classes=3)
    with pytest.raises(ModelError) as raised:
        check_logits(build(architecture), architecture, SHAPE, trained=trained)
    return str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "found", "at_fault"),
    [
        ({"features_only": True}, "a list of 5 tensors: (1, 24, 16, 16), (1, 32, 8, 8), ", "features_only: true"),
        (
            {"features_only": True, "out_indices": [1]},
            "a list of 1 tensor: (1, 32, 8, 8)",
            "features_only: true, out_indices: [1] from",
        ),
        ({"drop_rate": 0.1, "global_pool": ""}, "RuntimeError: mat1 and mat2", "global_pool: ''"),
        ({"in_chans": 1}, "expected input[1, 3, 32, 32] to have 1 channels", "in_chans: 1"),
    ],
)
def test_the_argument_at_fault_is_named_with_what_the_network_returns(arguments, found, at_fault):
    message = refused("timm/test_byobnet", arguments)
    assert found in message and f"next: remove {at_fault}" in message
    assert "allowed: one tensor of shape (1, 3): a logit for each class" in message or "cannot compute" in message
    assert "from the arguments of timm/test_byobnet: without " in message


def test_an_image_size_that_no_argument_explains_is_what_is_named():
    message = refused("timm/test_vit3", {"drop_rate": 0.1})
    assert "VisionTransformer cannot compute images of 32x32" in message and "set data.image_size" in message
    assert "remove" not in message


def test_outputs_in_training_count_for_a_network_that_is_trained():
    arguments = {"aux_logits": True, "init_weights": False}
    message = refused("torchvision/googlenet", arguments)
    assert "in training mode" in message and "GoogLeNetOutputs" in message and "remove aux_logits: true from" in message
    architecture = Architecture(model="torchvision/googlenet", arguments=arguments, num_classes=3)
    check_logits(build(architecture), architecture, SHAPE, trained=False)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"logits": 1}, "a dict with logits"),
        (torch.zeros(1, 3, dtype=torch.int64), "a tensor of torch.int64"),
        (torch.full((1, 3), torch.nan), "NaN or infinite"),
    ],
)
def test_what_is_no_logits_is_described(answer, found):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> object:
            return answer

    with pytest.raises(ModelError) as raised:
        check_logits(Net(), Architecture(model="timm/any", num_classes=3), SHAPE, trained=False)
    assert found in str(raised.value)


def test_nothing_of_the_network_changes():
    architecture = Architecture(model="timm/test_byobnet", num_classes=3)
    network = build(architecture).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    check_logits(network, architecture, SHAPE, trained=True)
    assert network.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("section", ["teacher", "student"])
def test_a_plan_refuses_it(tmp_path: Path, section: str) -> None:
    recipe = {
        "name": "tiny",
        "data": {"source": "digits", "image_size": 16, "limit": 64},
        "teacher": {"model": "timm/test_byobnet", "train": {"epochs": 1}},
        "student": {"model": "timm/test_byobnet"},
    }
    recipe[section] = {**recipe[section], "arguments": {"features_only": True}}
    with pytest.raises(ModelError, match=r"timm/test_byobnet does not return logits(?s:.)*features_only"):
        pipeline.plan(from_mapping(recipe), tmp_path / "run")
