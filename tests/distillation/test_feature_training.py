"""Losses on features in a real training: adapters learn, survive a kill, and never reach the student's files."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from edgekd import plugins
from edgekd.distillation.distill import TeacherSetup, distill, objective_over
from edgekd.distillation.method import method_named
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings, TrainSettings
from edgekd.store.store import resume_folder
from edgekd.training.train import TrainingSetup, train, training_loader

STILL = AugmentSettings(crop="none", flip=False)
STUDENT = ModelSettings(model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.25}, stem="small")
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


OBJECTIVE = [
    TermSettings(method="kd"),
    TermSettings(method="fitnets", student_layers="features.4", teacher_layers="layer2"),
    TermSettings(method="crd", negatives=32, dimension=16),
    TermSettings(method="attention", weight=10.0),
]


def test_a_killed_training_with_adapters_ends_in_the_same_bits_and_ships_none_of_them(teacher, small_digits, tmp_path):
    def run(name: str, **others: object):
        (tmp_path / name).mkdir(exist_ok=True)
        return distill(
            STUDENT,
            TeacherSetup(teacher),
            OBJECTIVE,
            small_digits,
            TrainingSetup(STEPS, STILL, **others),
            tmp_path / name,
        )

    def stop(done: int, total: int, note: str) -> None:
        if done > 0.6 * total:
            raise KeyboardInterrupt

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", progress=stop)
    (state,) = resume_folder(tmp_path / "killed").glob("epoch-*.safetensors")
    with safe_open(state, "pt") as saved:
        kept = [name for name in saved.keys() if name.startswith("objective/")]  # noqa: SIM118 (no mapping)
    assert any("memory" in name for name in kept) and any("adapters" in name for name in kept)
    again = run("killed")
    assert again.digest == whole.digest
    own = plugins.load("models", "torchvision").build("mobilenet_v3_small", num_classes=10, width_mult=0.25)
    with safe_open(whole.weights, "pt") as shipped:
        assert set(shipped.keys()) == set(own.state_dict())


def test_layers_that_cannot_be_compared_are_refused_with_their_shapes(teacher, small_digits):
    student = plugins.load("models", "torchvision").build("mobilenet_v3_small", num_classes=10, width_mult=0.25)
    network = checkpoints.load(teacher)
    terms = [TermSettings(method="review", student_layers="classifier.0", teacher_layers="layer1")]
    with pytest.raises(UsageError, match=r"classifier\.0 \d+ of the student, layer1 16x16x16 of the teacher"):
        objective_over(student, network, small_digits, terms)
    terms = [TermSettings(method="fitnets", student_layers="featurs.4", teacher_layers="layer1")]
    with pytest.raises(UsageError, match=r"no module 'featurs\.4'(?s:.)*features\.4 \(\d+x\d+x\d+\)"):
        objective_over(student, network, small_digits, terms)


@pytest.mark.parametrize(
    "term",
    [
        {"method": "attention", "student_layers": "classifier.3@input", "teacher_layers": "linear@input"},
        {"method": "flow", "student_layers": ["classifier.3@input"] * 2, "teacher_layers": ["linear@input"] * 2},
        {"method": "similarity", "student_layers": "features", "teacher_layers": "nowhere"},
    ],
)
def test_what_would_fail_in_the_first_step_is_refused_before(term, teacher, small_digits):
    student = plugins.load("models", "torchvision").build("mobilenet_v3_small", num_classes=10, width_mult=0.25)
    with pytest.raises(UsageError):
        objective_over(student, checkpoints.load(teacher), small_digits, [TermSettings(**term)])
