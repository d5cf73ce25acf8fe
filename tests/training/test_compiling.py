"""Compiled networks learn what they would have learned, whole or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.data.loader import Loader
from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.errors import RecipeError, TrainingError
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import AugmentSettings, DistillSettings, ModelSettings, TrainSettings
from edgekd.store.artifacts import read_json
from edgekd.training.compiling import compiled
from edgekd.training.fit import fit
from edgekd.training.objective import Supervised
from edgekd.training.train import TrainingSetup, evaluation_loader, train, training_loader


def _network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), *more, nn.Flatten(), nn.Linear(512, 10)
    )


def _fitted(data, folder, network, **settings):
    steps = TrainSettings(epochs=2, batch_size=32, learning_rate=0.01, precision="fp32", **settings)
    loader: Loader = training_loader(data, steps, AugmentSettings(flip=False))
    return fit(network, Supervised(), loader, steps, resume=folder, validation=evaluation_loader(data, "validation"))


def test_compiled_and_not_learn_the_same(small_digits, tmp_path):
    plain, whole = _network(), _network()
    histories = [
        _fitted(small_digits, tmp_path / f"{use_compile}", network, compile=use_compile, ema=0.9)
        for network, use_compile in ((plain, False), (whole, True))
    ]
    losses = [[record.loss for record in history] for history in histories]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert list(whole.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(whole.state_dict()[name], value, rtol=1e-2, atol=1e-3)
    assert histories[0][-1].validation_accuracy == pytest.approx(histories[1][-1].validation_accuracy, abs=0.05)


class Undecided(nn.Module):
    """Goes another way where a value says so, which no graph can hold."""

    def forward(self, x):
        return x * 2 if x.sum().item() > 0 else x


def test_what_cannot_be_compiled_whole_is_refused_with_its_reason(small_digits, tmp_path):
    with pytest.raises(TrainingError, match=r"cannot be compiled(?s:.)*remove compile"):
        _fitted(small_digits, tmp_path, _network(Undecided()), compile=True)
    assert read_json(tmp_path / "throughput.json")["precision"] == "fp32"


def test_a_compiled_teacher_answers_as_it_did():
    network = _network().eval()
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(compiled(network)(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"distill": {"compile": True, "objective": [{"method": "attention"}]}}, "attention reads layers"),
        ({"prune": {"compile": True, "objective": [{"method": "fitnets"}]}}, "fitnets reads layers"),
        ({"quantize": {"compile": True}}, "quantize.compile"),
        ({"distill": {"compile": True, "scheme": "federated"}, "teacher": None}, "compiling them again"),
    ],
)
def test_what_does_not_go_together_is_reported_before_anything_runs(sections, message):
    recipe = {
        "name": "x",
        "data": {"source": "digits", "image_size": 16},
        "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
        "student": {"model": "cifar/resnet8"},
        **sections,
    }
    with pytest.raises(RecipeError, match=message):
        from_mapping({key: value for key, value in recipe.items() if value is not None})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_compiled_student_and_teacher_on_a_gpu(small_digits, tmp_path):
    shifted = AugmentSettings(padding=1, flip=False)
    for name in ("teacher", "student"):
        (tmp_path / name).mkdir()
    model = ModelSettings(model="cifar/resnet8")
    settings = TrainSettings(epochs=10, batch_size=32, compile=True)
    teacher = train(model, small_digits, TrainingSetup(settings, shifted), tmp_path / "teacher")
    assert teacher.metrics["validation_accuracy"] > 0.8
    student = distill(
        model,
        TeacherSetup(teacher),
        DistillSettings().objective,
        small_digits,
        TrainingSetup(DistillSettings(epochs=10, batch_size=32, compile=True), shifted),
        tmp_path / "student",
    )
    assert student.metrics["validation_accuracy"] > 0.8
