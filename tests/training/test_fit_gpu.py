"""The same loop on a GPU: learning, going on after an interruption, teacher and student in bf16."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import AugmentSettings, DistillSettings, ModelSettings, TrainSettings
from edgekd.training.host import best_device, resolve_precision
from edgekd.training.train import TrainingSetup, adopt, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
STILL = AugmentSettings(padding=1, flip=False)


def _folder(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_teacher_student_and_adoption_on_a_gpu(small_digits, tmp_path):
    assert best_device().type == "cuda"
    model = ModelSettings(model="cifar/resnet8")
    settings = TrainSettings(epochs=10, batch_size=32, ema=0.9)
    teacher = train(model, small_digits, TrainingSetup(settings, STILL), _folder(tmp_path, "teacher"))
    assert teacher.metrics["validation_accuracy"] > 0.8
    student = distill(
        ModelSettings(model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.35}),
        TeacherSetup(teacher),
        DistillSettings().objective,
        small_digits,
        TrainingSetup(DistillSettings(epochs=20, batch_size=32), STILL),
        _folder(tmp_path, "student"),
    )
    assert student.metrics["validation_accuracy"] > 0.5
    again = adopt(
        ModelSettings(model="cifar/resnet8", checkpoint=teacher.path), small_digits, _folder(tmp_path, "again")
    )
    assert again.metrics["validation_accuracy"] == pytest.approx(teacher.metrics["validation_accuracy"], abs=0.01)
    assert Checkpoint.load(again.path).digest == again.digest


def test_compiled_student_and_teacher_on_a_gpu(small_digits, tmp_path):
    model = ModelSettings(model="cifar/resnet8")
    settings = TrainSettings(epochs=10, batch_size=32, compile=True)
    teacher = train(model, small_digits, TrainingSetup(settings, STILL), _folder(tmp_path, "teacher"))
    assert teacher.metrics["validation_accuracy"] > 0.8
    student = distill(
        model,
        TeacherSetup(teacher),
        DistillSettings().objective,
        small_digits,
        TrainingSetup(DistillSettings(epochs=10, batch_size=32, compile=True), STILL),
        _folder(tmp_path, "student"),
    )
    assert student.metrics["validation_accuracy"] > 0.8


def test_a_gpu_trains_in_bf16_where_it_can():
    expected = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    assert resolve_precision("auto", torch.nn.Linear(1, 1), torch.device("cuda")) == expected
