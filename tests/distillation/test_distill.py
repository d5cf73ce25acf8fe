"""A student on one teacher's outputs."""

from __future__ import annotations

import pytest
from safetensors import safe_open
from samples import resealed

from edgekd import plugins
from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.errors import ModelError
from edgekd.recipe.settings import (
    AugmentSettings,
    DistillSettings,
    ModelSettings,
    StepSettings,
    TermSettings,
    TrainSettings,
)
from edgekd.store.store import resume_folder
from edgekd.training.train import TrainingSetup, train

STILL = AugmentSettings(crop="none", flip=False)
STUDENT = ModelSettings(model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.25}, stem="small")
STEPS = StepSettings(epochs=3, batch_size=64, precision="fp32", learning_rate=0.02)


@pytest.fixture(scope="module")
def teacher(small_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    settings = TrainSettings(epochs=2, batch_size=64, precision="fp32")
    return train(ModelSettings(model="cifar/resnet14"), small_digits, TrainingSetup(settings, STILL), out)


OBJECTIVE = [
    TermSettings(method="kd"),
    TermSettings(method="fitnets", student_layers="features.4", teacher_layers="layer2"),
    TermSettings(method="crd", negatives=32, dimension=16),
    TermSettings(method="attention", weight=10.0),
]


def test_an_interrupted_training_with_adapters_ends_in_the_same_bits_and_exports_none_of_them(
    teacher, small_digits, tmp_path
):
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


@pytest.fixture(scope="module")
def smoothed(small_digits, tmp_path_factory):
    """A teacher trained with label smoothing."""
    out = tmp_path_factory.mktemp("teacher")
    settings = TrainSettings(epochs=1, batch_size=64, label_smoothing=0.1)
    return train(ModelSettings(model="cifar/resnet8"), small_digits, TrainingSetup(settings, STILL), out)


@pytest.mark.parametrize(("temperature", "advice"), [(4.0, "lower the temperature of kd"), (1.0, None)])
def test_a_smoothed_teacher_is_warned_about(smoothed, small_digits, tmp_path, temperature, advice):
    settings = DistillSettings(epochs=1, batch_size=64, objective=(TermSettings(method="kd", temperature=temperature),))
    model, objective = ModelSettings(model="cifar/resnet8"), settings.objective
    student = distill(model, TeacherSetup(smoothed), objective, small_digits, TrainingSetup(settings, STILL), tmp_path)
    (warning,) = student.metrics["warnings"]
    assert "label smoothing 0.1" in warning
    assert (advice in warning) if advice else ("temperature" not in warning)
    assert student.details.training.teacher == smoothed.digest


def test_a_teacher_of_other_classes_is_refused(smoothed, small_digits, tmp_path):
    other = resealed(smoothed, tmp_path / "other", classes=("a", "b"))
    with pytest.raises(ModelError, match=r"different classes(?s:.)*2 classes in the teacher"):
        distill(
            ModelSettings(model="cifar/resnet8"),
            TeacherSetup(other),
            (),
            small_digits,
            TrainingSetup(DistillSettings(), STILL),
            tmp_path,
        )
