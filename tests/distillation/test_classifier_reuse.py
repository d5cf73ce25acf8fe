"""simkd in a run: the projector and the teacher's classifier ship with the student."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.edits import reuse_classifier
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings, TrainSettings
from edgekd.training.train import TrainingSetup, train

STILL = AugmentSettings(crop="none", flip=False)
SIMKD = (TermSettings(method="simkd", reduction=2),)


@pytest.fixture(scope="module")
def teacher(small_digits, tmp_path_factory):
    settings = TrainSettings(epochs=4, batch_size=64, precision="fp32")
    out = tmp_path_factory.mktemp("teacher")
    return train(ModelSettings(model="cifar/resnet8x2"), small_digits, TrainingSetup(settings, STILL), out)


def test_the_student_ends_in_the_teachers_classifier_and_rebuilds(teacher, small_digits, tmp_path):
    settings = StepSettings(epochs=8, batch_size=64, precision="fp32")
    model = ModelSettings(model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.25})
    student = distill(model, TeacherSetup(teacher), SIMKD, small_digits, TrainingSetup(settings, STILL), tmp_path)
    network, theirs = checkpoints.load(student), checkpoints.load(teacher)
    assert torch.equal(network.classifier[3].classifier.weight, theirs.linear.weight)
    assert student.details.architecture.edits == (
        {"edit": "reuse_classifier", "at": "classifier.3", "features": 128, "reduction": 2},
    )
    losses = [record["loss"] for record in student.metrics["history"]]
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_a_student_with_another_teachers_classifier_takes_this_ones(teacher, small_digits, tmp_path):
    settings = StepSettings(epochs=1, batch_size=64, precision="fp32")
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    model, both = ModelSettings(model="cifar/resnet8"), (*SIMKD, TermSettings(method="cross_entropy"))
    first = distill(model, TeacherSetup(teacher), SIMKD, small_digits, TrainingSetup(settings, STILL), tmp_path / "a")
    again = TrainSettings(epochs=1, batch_size=64, precision="fp32", seed=1)
    other = train(ModelSettings(model="cifar/resnet8x2"), small_digits, TrainingSetup(again, STILL), tmp_path / "b")
    second = distill(first, TeacherSetup(other), both, small_digits, TrainingSetup(settings, STILL), tmp_path / "c")
    assert second.details.architecture == first.details.architecture
    assert torch.equal(checkpoints.load(second).linear.classifier.weight, checkpoints.load(other).linear.weight)


def test_a_network_without_a_linear_end_is_refused():
    network = build(Architecture(model="torchvision/squeezenet1_1", num_classes=10))
    with pytest.raises(ModelError, match=r"classifier\.1(?s:.)*linear"):
        reuse_classifier.apply(network, {"at": "classifier.1", "features": 8, "reduction": 2})
