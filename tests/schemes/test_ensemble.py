"""Several teachers as one."""

from __future__ import annotations

import json
import math

import pytest
import torch

from edgekd.data.loader import Batch
from edgekd.distillation.methods.kd import kd
from edgekd.distillation.objective import Outputs
from edgekd.errors import RecipeError
from edgekd.schemes.ensemble import Ensemble, weights
from edgekd.stages import data as data_stage

# Two epochs: it has learned something, and is often wrong and sure of it. After one it may answer with one class only.
WEAK = {
    "model": "cifar/resnet14",
    "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.1, "precision": "fp32", "seed": 1},
}
KD = "distill.objective=[{method: kd}]"
SMALL = ("data.limit=200", "teacher.train.epochs=2", "distill.epochs=1", KD)


def _scheme(combine="mean", *teachers):
    return {"name": "ensemble", "combine": combine, "teachers": list(teachers or [WEAK])}


def _override(combine):
    return f"distill.scheme={json.dumps(_scheme(combine))}"


def _batch(targets):
    return Batch(torch.zeros(len(targets), 3, 1, 1), torch.tensor(targets), torch.arange(len(targets)))


def test_the_mean_is_the_geometric_mean_of_probabilities_at_every_temperature():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5)
    combined = Ensemble([lambda _, z=z: Outputs(z) for z in logits], "mean")(_batch([0] * 4)).logits
    for temperature in (1.0, 4.0):
        geometric = (logits / temperature).softmax(2).log().mean(0).exp()
        expected = geometric / geometric.sum(1, keepdim=True)
        assert torch.allclose((combined / temperature).softmax(1), expected, atol=1e-6)


def test_the_mean_of_a_teachers_logits_does_not_change_the_output():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5)
    for combine in ("mean", "confidence", "entropy"):
        plain, raised = (
            Ensemble([lambda _, z=z: Outputs(z) for z in both], combine)(_batch([0, 1, 2, 3])).logits
            for both in (logits, logits + torch.tensor([7.0, -3.0]).view(2, 1, 1))
        )
        assert torch.allclose(plain, raised, atol=1e-5)
        assert torch.allclose(plain.sum(1), torch.zeros(4), atol=1e-5)


def test_equal_teachers_have_the_output_of_one():
    torch.manual_seed(0)
    logits, student = torch.randn(4, 5), torch.randn(4, 5)
    for combine in ("mean", "confidence", "entropy"):
        combined = Ensemble([lambda _: Outputs(logits)] * 3, combine)(_batch([0, 1, 2, 3])).logits
        assert kd(student, combined).item() == pytest.approx(kd(student, logits).item(), rel=1e-5)


def test_weights_by_hand():
    # Probabilities (3/4, 1/4) and (1/2, 1/2), the label is the first class: CE = log 4/3 and log 2.
    logits = torch.tensor([[[math.log(3), 0.0]], [[0.0, 0.0]]])
    label = torch.tensor([0])
    assert weights(logits, label, "mean").flatten().tolist() == [0.5, 0.5]
    # softmax(CE) = (4/3, 2) / (10/3) = (0.4, 0.6)
    assert weights(logits, label, "confidence").flatten().tolist() == pytest.approx([0.6, 0.4])
    # With the other label CE = log 4 and log 2: softmax = (2/3, 1/3)
    assert weights(logits, 1 - label, "confidence").flatten().tolist() == pytest.approx([1 / 3, 2 / 3])
    surer = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    first = math.exp(surer) / (math.exp(surer) + 0.5)
    assert weights(logits, 1 - label, "entropy").flatten().tolist() == pytest.approx([first, 1 - first])


@pytest.mark.parametrize("combine", ["mean", "confidence", "entropy"])
def test_weights_are_shares_and_finite_where_a_teacher_is_certain(combine):
    logits = torch.tensor([[[200.0, 0.0, 0.0]], [[0.0, 200.0, 0.0]], [[0.0, 0.0, 0.0]]])
    share = weights(logits, torch.tensor([0]), combine)
    assert (share >= 0).all() and share.sum().item() == pytest.approx(1.0)


def test_a_student_of_two_teachers_names_both_and_is_reused(stages, distilled, planned):
    chain = stages(*SMALL, _override("confidence"))
    made = distilled(chain)
    by = {done.name: done.artifact for done in chain.store.log}
    assert made.others == {"teacher2": by["teacher2"]} and by["teacher"].digest != by["teacher2"].digest
    notes = made.student.details.training
    assert notes.teachers == {role: by[role].digest for role in ("teacher", "teacher2")}
    assert notes.combine == "confidence" and made.student.metrics["teacher_precision"].keys() == notes.teachers.keys()
    again = stages(*SMALL, _override("confidence"))
    distilled(again)
    assert {done.state for done in again.store.log} == {"reused"}
    plan = planned(stages(*SMALL, _override("entropy")), chain.store.root)
    assert plan == {"data": "reused", "teacher": "reused", "teacher2": "reused", "distill": "run"}


@pytest.mark.slow
def test_every_combination_beats_the_worst_teacher_and_labels_help_most(stages, distilled, score):
    """Mean of three seeds, equal steps. The weak teacher lowers a plain mean: that is what confidence is for."""
    sums = {"worst": 0.0, "mean": 0.0, "entropy": 0.0, "confidence": 0.0}
    data = data_stage.data(stages())
    weak = distilled(stages(KD, _override("mean"))).others["teacher2"]
    assert 0.3 < score(weak, data) < 0.8
    for seed in range(3):
        overrides = (KD, f"distill.seed={seed}")
        sums["worst"] += score(distilled(stages(*overrides, teacher=WEAK)).student, data) / 3
        for combine in ("mean", "entropy", "confidence"):
            sums[combine] += score(distilled(stages(*overrides, _override(combine))).student, data) / 3
    assert min(sums["mean"], sums["entropy"]) > sums["worst"] + 0.2, sums
    assert sums["confidence"] > max(0.85, sums["mean"] + 0.02), sums


def test_a_plan_writes_nothing(stages, tmp_path, planned):
    plan = planned(stages(_override("mean")), tmp_path / "plan")
    assert plan == {"data": "run", "teacher": "planned", "teacher2": "planned", "distill": "planned"}
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("scheme", "objective", "message"),
    [
        ({"name": "ensemble"}, [{"method": "kd"}], "teachers"),
        ({"name": "ensemble", "teachers": []}, [{"method": "kd"}], "an ensemble needs more than one teacher"),
        (_scheme("mean", {"model": "cifar/resnet14"}), [{"method": "kd"}], "a teacher must be trained"),
        (_scheme("mean", {**WEAK, "model": "cifar/resnet15"}), [{"method": "kd"}], "unknown model of cifar"),
        (_scheme("median"), [{"method": "kd"}], "confidence"),
        (_scheme("mean", WEAK, WEAK), [{"method": "kd"}], "which adds nothing"),
        (_scheme(), [{"method": "kd"}, {"method": "attention"}], "several sets of layers"),
    ],
)
def test_mistakes_are_reported_before_anything_runs(stages, scheme, objective, message):
    with pytest.raises(RecipeError, match=message) as raised:
        stages(distill={"scheme": scheme, "objective": objective})
    assert len(raised.value.problems) == 1
