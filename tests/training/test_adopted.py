"""Weights from elsewhere: trained on other inputs, with the classes in another order, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from samples import resealed
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.models import checkpoint as checkpoints
from edgekd.recipe.settings import AugmentSettings, ModelSettings, TrainSettings
from edgekd.training.adopted import warnings_of
from edgekd.training.train import TrainingSetup, adopt, evaluation_loader, train


@pytest.fixture(scope="module")
def network(small_digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    settings = TrainSettings(epochs=8, batch_size=32, precision="fp32")
    setup = TrainingSetup(settings, AugmentSettings(crop="none", flip=False))
    made = train(ModelSettings(model="cifar/resnet8"), small_digits, setup, tmp_path_factory.mktemp("trained"))
    assert made.metrics["validation_accuracy"] > 0.8
    return checkpoints.load(made)


def found(network: nn.Module, data: Dataset) -> list[str]:
    return warnings_of(network.eval(), data, evaluation_loader(data, "validation"), section="data")


def test_a_network_that_fits_has_no_warning(network, small_digits):
    assert found(network, small_digits) == []


def test_another_normalisation_is_named_with_what_to_set(network, small_digits, tmp_path):
    # The data is read with values far from those of the training, which were ImageNet's.
    own = small_digits.details.preprocessing
    other = small_digits.details.preprocessing.__class__(own.image_size, own.resize, (0.9, 0.9, 0.9), (3.0, 3.0, 3.0))
    (warning,) = found(network, resealed(small_digits, tmp_path / "other", preprocessing=other))
    assert "With another normalisation they reach " in warning
    assert f"data.mean: {list(own.mean)} and data.std: {list(own.std)}" in warning


def test_classes_in_another_order_are_noticed(network, small_digits):
    class Shifted(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return network(images).roll(1, dims=1)

    (warning,) = found(Shifted(), small_digits)
    assert "In another order of the classes they reach " in warning and "mostly taken for" in warning


def test_an_untrained_network_has_its_problem_and_no_explanation(small_digits, tmp_path):
    class Nothing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 10)

    (warning,) = found(Nothing(), small_digits)
    assert warning.endswith("validation images: the same output for every image.")


def test_the_warning_is_in_the_checkpoint(network, small_digits, tmp_path: Path):
    state = {name: value for name, value in network.state_dict().items()}
    last = [name for name in state if name.endswith(("fc.weight", "fc.bias", "linear.weight", "linear.bias"))]
    torch.save({**state, **{name: state[name].roll(1, dims=0) for name in last}}, tmp_path / "w.pth")
    (tmp_path / "out").mkdir()
    made = adopt(ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / "w.pth"), small_digits, tmp_path / "out")
    assert len(last) == 2 and "another order of the classes" in made.metrics["warnings"][0]
