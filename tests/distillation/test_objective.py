"""The weighted sum, the teacher beside it, and the stage around both."""

from __future__ import annotations

import pytest
import torch
from samples import resealed
from torch import nn

from edgekd.data.loader import Batch
from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.distillation.method import method_named
from edgekd.distillation.methods.kd import kd
from edgekd.distillation.methods.mse import mse
from edgekd.distillation.objective import Distillation, Teacher
from edgekd.distillation.objective_settings import inherited
from edgekd.distillation.terms import Networks, Seen, build_terms
from edgekd.errors import ModelError, UnknownNameError
from edgekd.recipe.settings import AugmentSettings, DistillSettings, ModelSettings, TermSettings, TrainSettings
from edgekd.training.train import TrainingSetup, train

CPU = torch.device("cpu")
STILL = AugmentSettings(crop="none", flip=False)


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(9)
    return Batch(torch.randn(6, 3, 4, 4), torch.randint(5, (6,)), torch.arange(6))


def test_terms_are_weighted_and_summed_by_name(batch):
    teacher, student = _net(1), _net(2)
    objective = [
        TermSettings(method="kd", weight=0.9, temperature=2.0),
        TermSettings(method="mse", weight=0.1),
        TermSettings(method="kd", weight=0.5),
    ]
    answer = Teacher(teacher, CPU, "fp32")
    terms = build_terms(objective, Networks(student, teacher, 4, 6))
    losses = Distillation(student, answer, terms)(student, batch)
    with torch.no_grad():
        s, t = student(batch.images), answer(batch).logits
    expected = {"kd": 0.9 * kd(s, t, temperature=2.0), "mse": 0.1 * mse(s, t), "kd-3": 0.5 * kd(s, t)}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-6)


def test_the_teacher_runs_in_eval_mode_and_never_trained_or_saved(batch):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    student = _net(3)
    terms = build_terms([TermSettings(method="kd")], Networks(student, network, 4, 6))
    objective = Distillation(student, Teacher(network, CPU, "fp32"), terms)
    sum(objective(student, batch).values()).backward()
    assert not network.training and all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert student[1].weight.grad is not None
    assert not objective.state_dict() and not list(objective.parameters())


def test_an_unknown_method_and_a_wrong_parameter():
    with pytest.raises(UnknownNameError, match="did you mean 'mse'"):
        method_named("msee")
    with pytest.raises(ValueError, match="temperatur"):
        method_named("kd").check(TermSettings(method="kd", temperatur=2.0))


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


def test_a_term_warms_up_and_recovery_does_not():
    student, teacher = _net(1), _net(2)
    (term,) = objective = [TermSettings(method="kd", warmup_epochs=4.0)]
    terms = build_terms(objective, Networks(student, teacher, 4, 6))
    logits = torch.randn(6, 5), torch.randn(6, 5)
    full = kd(*logits).item()
    for epoch, share in ((0.0, 0.0), (2.0, 0.5), (4.0, 1.0), (40.0, 1.0)):
        assert terms(Seen(*logits, epoch=epoch))["kd"].item() == pytest.approx(share * full)
    assert inherited([term])[0].warmup_epochs == 0.0


def test_what_recovery_takes_over():
    kept = [TermSettings(method="dkd"), TermSettings(method="cross_entropy")]
    assert list(inherited([*kept, TermSettings(method="attention")])) == kept
    assert inherited([TermSettings(method="crd"), kept[1]]) == DistillSettings().objective


def test_a_teacher_that_no_term_needs_is_not_run(batch):
    def never(batch):
        raise AssertionError

    student = _net(1)
    terms = build_terms([TermSettings(method="cross_entropy")], Networks(student, None, 4, 6))
    assert Distillation(student, never, terms)(student, batch).keys() == {"cross_entropy"}
