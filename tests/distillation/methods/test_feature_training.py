"""Each loss on features between two real networks."""

from __future__ import annotations

import pytest
import torch

from edgekd import plugins
from edgekd.distillation.distill import objective_over
from edgekd.distillation.method import method_named
from edgekd.models import checkpoint as checkpoints
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings, TrainSettings
from edgekd.training.train import TrainingSetup, train, training_loader

STILL = AugmentSettings(crop="none", flip=False)
STEPS = StepSettings(epochs=3, batch_size=64, precision="fp32", learning_rate=0.02)
ON_FEATURES = [name for name in plugins.names("method") if method_named(name).on_features]


@pytest.fixture(scope="module")
def teacher(small_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    settings = TrainSettings(epochs=2, batch_size=64, precision="fp32")
    return train(ModelSettings(model="cifar/resnet14"), small_digits, TrainingSetup(settings, STILL), out)


@pytest.mark.parametrize("method", [name for name in ON_FEATURES if not method_named(name).changes_student])
def test_every_method_works_between_a_resnet_and_a_mobilenet_on_the_taps_it_chooses(method, teacher, small_digits):
    torch.manual_seed(0)
    student = plugins.load("models", "torchvision").build("mobilenet_v3_small", num_classes=10, width_mult=0.25)
    parameters = {"negatives": 64} if method == "crd" else {}
    terms = [TermSettings(method=method, **parameters)]
    objective = objective_over(student, checkpoints.load(teacher), small_digits, terms)
    batch = next(iter(training_loader(small_digits, STEPS, STILL).epoch(0)))
    (loss,) = objective(student.train(), batch).values()
    loss.backward()
    assert loss.isfinite() and loss.item() != 0
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in student.parameters())
    learned = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learned) and bool(learned) == bool(objective.state_dict())
