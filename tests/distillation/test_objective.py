"""The weighted sum, and the teacher beside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.data.loader import Batch
from edgekd.distillation.methods.kd import kd
from edgekd.distillation.methods.mse import mse
from edgekd.distillation.objective import Distillation, Teacher
from edgekd.distillation.terms import Networks, build_terms
from edgekd.recipe.settings import TermSettings

CPU = torch.device("cpu")


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
    source = Teacher(teacher, CPU, "fp32")
    terms = build_terms(objective, Networks(student, teacher, 4, 6, 10))
    losses = Distillation(student, source, terms)(student, batch)
    with torch.no_grad():
        s, t = student(batch.images), source(batch).logits
    expected = {"kd": 0.9 * kd(s, t, temperature=2.0), "mse": 0.1 * mse(s, t), "kd-3": 0.5 * kd(s, t)}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-6)


def test_the_teacher_runs_in_eval_mode_and_never_trained_or_saved(batch):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    student = _net(3)
    terms = build_terms([TermSettings(method="kd")], Networks(student, network, 4, 6, 10))
    objective = Distillation(student, Teacher(network, CPU, "fp32"), terms)
    sum(objective(student, batch).values()).backward()
    assert not network.training and all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert student[1].weight.grad is not None
    assert not objective.state_dict() and not list(objective.parameters())


def test_a_teacher_that_no_term_needs_is_not_run(batch):
    def never(batch):
        raise AssertionError

    student = _net(1)
    terms = build_terms([TermSettings(method="cross_entropy")], Networks(student, None, 4, 6, 10))
    assert Distillation(student, never, terms)(student, batch).keys() == {"cross_entropy"}
