"""Losses whose weights are learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekd.data.loader import Batch
from edgekd.distillation.objective import Distillation, Outputs
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import RecipeError
from edgekd.recipe.settings import TermSettings
from edgekd.schemes import hybrid
from edgekd.schemes.hybrid import Hybrid
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage

HYBRID = "distill.scheme=hybrid"
# A million is a unit's mistake: without it the similarity term is about 1e-3.
BAD = "distill.objective=[{method: similarity, weight: 1000000.0}, {method: kd}, {method: cross_entropy}]"
SMALL = ("data.limit=200", "teacher.train.epochs=1")
BATCH = Batch(torch.ones(2, 3, 1, 1), torch.tensor([0, 1]), torch.arange(2))


def _objective(student, target, weights=(1.0, 1.0), limit=100.0):
    methods = ("mse", "cross_entropy")
    terms = [TermSettings(method=method, weight=weight) for method, weight in zip(methods, weights, strict=True)]
    built = build_terms(terms, Networks(student, None, 1, 2, 10))
    return Hybrid(Distillation(student, lambda batch: Outputs(target), built), limit)


@pytest.fixture
def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 4))


def test_the_sum_and_its_gradient_by_hand(student):
    target = torch.full((2, 4), 3.0)
    objective = _objective(student, target)
    first = objective(student, BATCH)
    assert [first[name].item() for name in ("mse", "cross_entropy")] == pytest.approx([1.0, 1.0])
    assert first["uncertainty"].item() == 0.0
    with torch.no_grad():
        student[1].weight.mul_(0.5)
        objective.log_variance.copy_(torch.tensor([0.5, -1.0]))
    plain = objective.distillation(student, BATCH)
    ratios = [plain[name].item() / unit for name, unit in zip(plain, objective.units.tolist(), strict=True)]
    terms = objective(student, BATCH)
    expected = [math.exp(-0.5) * ratios[0], math.e * ratios[1]]
    assert [terms["mse"].item(), terms["cross_entropy"].item()] == pytest.approx(expected, rel=1e-5)
    assert terms["uncertainty"].item() == pytest.approx(-0.5)
    sum(terms.values()).backward()
    assert objective.log_variance.grad.tolist() == pytest.approx([1 - value for value in expected], rel=1e-4)


def test_on_fixed_losses_the_factors_become_their_reciprocals(student):
    objective = _objective(student, torch.zeros(2, 4))
    objective(student, BATCH)
    with torch.no_grad():
        student[1].weight.mul_(0.5)
        ratios = torch.stack(list(objective.distillation(student, BATCH).values())) / objective.units
    optimiser = torch.optim.SGD([objective.log_variance], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        sum(objective(student, BATCH).values()).backward()
        optimiser.step()
    assert torch.allclose(torch.exp(-objective.log_variance), 1 / ratios, rtol=1e-3)


def test_the_recipes_weights_cancel_out(student):
    target = torch.full((2, 4), 3.0)
    plain, scaled = _objective(student, target), _objective(student, target, weights=(1e6, 1e-3))
    for objective in (plain, scaled):
        objective(student, BATCH)
    assert scaled.weights() == pytest.approx(plain.weights(), rel=1e-5)


def test_a_loss_near_zero_has_a_bounded_weight_that_can_fall_again(student):
    objective = _objective(student, torch.zeros(2, 4), limit=10.0)
    objective(student, BATCH)
    optimiser = torch.optim.SGD([objective.log_variance], lr=0.5)
    units = objective.units.clone()

    def steps(count):
        for _ in range(count):
            optimiser.zero_grad()
            sum(objective(student, BATCH).values()).backward()
            optimiser.step()

    objective.units.copy_(units * 1e6)
    steps(50)
    at_bound = [weight * unit * 1e6 for weight, unit in zip(objective.weights().values(), units, strict=True)]
    assert at_bound == pytest.approx([10.0, 10.0], rel=1e-4)
    objective.units.copy_(units)
    steps(50)
    assert torch.allclose(objective.log_variance, torch.zeros(2), atol=1e-3)


def test_a_loss_that_begins_at_zero_waits_for_its_unit(student):
    with torch.no_grad():
        same = student(BATCH.images)
    objective = _objective(student, same)
    assert objective(student, BATCH)["mse"].item() == 0.0
    assert objective.units[0] == 0
    with torch.no_grad():
        student[1].weight.add_(1.0)
    assert objective(student, BATCH)["mse"].item() == pytest.approx(1.0)


@pytest.mark.slow
def test_learned_weights_make_up_for_bad_ones(stages, distilled, score):
    """Against the same bad weights kept, and against the default objective, whose weights are the literature's."""
    fixed, learned, tuned = (distilled(stages(*each)).student for each in ((BAD,), (BAD, HYBRID), ()))
    data = data_stage.data(stages())
    scores = [score(student, data) for student in (fixed, learned, tuned)]
    assert scores[1] > scores[0] + 0.1, scores
    assert scores[1] > scores[2] - 0.03, scores


def test_the_learned_weights_are_reported(stages, distilled):
    learned = distilled(stages(*SMALL, BAD, HYBRID)).student
    weights = learned.metrics["learned_weights"]
    assert learned.metrics["teacher_precision"].keys() == {"precision", "why"}
    assert list(weights) == ["similarity", "kd", "cross_entropy"]
    assert weights["similarity"] < 1e5 and all(weight > 0 for weight in weights.values())


def test_learned_weights_resume_after_an_interruption(stages, distilled, monkeypatch, tmp_path):
    """Killed while the third epoch is saved: the resumed run ends in the same bits, learned weights included."""
    from edgekd.training.state import TrainingState

    whole = distilled(stages(*SMALL, BAD, HYBRID)).student
    save = TrainingState.save

    def killed(self):
        if len(self.history) == 3 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt
        save(self)

    chain = stages(*SMALL, BAD, HYBRID)
    data = data_stage.data(chain)
    teacher = train_stage.teacher(chain, data)

    def make():
        return hybrid._distill(chain, teacher, data, 100.0, tmp_path / "out")

    monkeypatch.setattr(TrainingState, "save", killed)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        make()
    again = make()
    assert again.digest == whole.digest
    assert again.metrics["learned_weights"] == whole.metrics["learned_weights"]


def test_an_equal_one_is_reused_and_the_limit_is_in_the_key(stages, distilled, planned):
    distilled(stages(*SMALL, BAD, HYBRID))
    chain = stages(*SMALL, BAD, HYBRID)
    distilled(chain)
    assert {done.state for done in chain.store.log} == {"reused"}
    plan = planned(stages(*SMALL, BAD, "distill.scheme={name: hybrid, limit: 10.0}"), chain.store.root)
    assert plan == {"data": "reused", "teacher": "reused", "distill": "run"}


def test_a_plan_writes_nothing(stages, tmp_path, planned):
    plan = planned(stages(HYBRID), tmp_path / "plan")
    assert plan == {"data": "run", "teacher": "planned", "distill": "planned"}
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("scheme", "objective", "message"),
    [
        ("hybrid", [{"method": "kd"}], "two terms or more"),
        ("hybrid", [{"method": "variational"}, {"method": "kd"}], "falls below zero"),
        ("hybrid", [{"method": "kd", "warmup_epochs": 1.0}, {"method": "mse"}], "on the first batch, where kd"),
        ({"name": "hybrid", "limit": 1.0}, [{"method": "kd"}, {"method": "mse"}], "must be above 1"),
        ({"name": "hybrid", "limits": 5.0}, [{"method": "kd"}, {"method": "mse"}], "did you mean 'limit'"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(stages, scheme, objective, message):
    with pytest.raises(RecipeError, match=message) as raised:
        stages(distill={"scheme": scheme, "objective": objective})
    assert len(raised.value.problems) == 1
