"""Teacher, assistant, student."""

from __future__ import annotations

import json

import chains
import pytest

from edgekd.errors import EdgekdError, RecipeError
from edgekd.schemes import assistant
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage

KD = "distill.objective=[{method: kd}]"
SMALL = ("data.limit=200", "teacher.train.epochs=1", "distill.epochs=2")
BETWEEN = {"name": "assistant", "model": "cifar/resnet8x2", "epochs": 3}


def _scheme(**more):
    return f"distill.scheme={json.dumps({**BETWEEN, **more})}"


def test_each_learns_from_the_one_before_and_all_is_reused(stages, distilled, planned):
    """The assistant from layers and logits, the student from logits only."""
    overrides = (*SMALL, KD, _scheme(objective=[{"method": "similarity"}, {"method": "kd"}]))
    chain = stages(*overrides)
    made = distilled(chain)
    data, assistant = data_stage.data(chain), made.others["assistant"]
    first, second = (checkpoint.details.training for checkpoint in (assistant, made.student))
    assert first.teacher == train_stage.teacher(chain, data).digest and second.teacher == assistant.digest
    assert (first.epochs, second.epochs) == (3, 2)
    assert [[term["method"] for term in one.objective] for one in (first, second)] == [["similarity", "kd"], ["kd"]]
    again = stages(*overrides)
    distilled(again)
    assert {done.state for done in again.store.log} == {"reused"}
    plan = planned(stages(*overrides, "distill.scheme.learning_rate=0.05"), chain.store.root)
    assert plan == {"data": "reused", "teacher": "reused", "assistant": "run", "distill": "planned"}


def test_a_plan_writes_nothing(stages, tmp_path, planned):
    plan = planned(stages(_scheme()), tmp_path / "plan")
    assert plan == {"data": "run", "teacher": "planned", "assistant": "planned", "distill": "planned"}
    assert not (tmp_path / "plan").exists()


LAYERS = {"method": "attention", "student_layers": "a", "teacher_layers": "b"}


@pytest.mark.parametrize(
    ("scheme", "objective", "message"),
    [
        ({"name": "assistant"}, [{"method": "kd"}], "model"),
        ({**BETWEEN, "model": "cifar/resnet10"}, [{"method": "kd"}], "unknown model.*resnet10"),
        ({**BETWEEN, "epoch": 3}, [{"method": "kd"}], "did you mean 'epochs'"),
        ({"name": "assistant", "model": "cifar/resnet8"}, [{"method": "kd"}], "the student itself"),
        ({**BETWEEN, "objective": [{"method": "kdd"}]}, [{"method": "kd"}], "did you mean 'kd'"),
        ({**BETWEEN, "objective": [{"method": "kd", "temperatur": 2.0}]}, [{"method": "kd"}], "temperatur"),
        (BETWEEN, [LAYERS], "three networks in two pairs"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(stages, scheme, objective, message):
    with pytest.raises(RecipeError, match=message) as raised:
        stages(distill={"scheme": scheme, "objective": objective})
    assert len(raised.value.problems) == 1


@pytest.mark.slow
def test_with_a_far_better_teacher_an_assistant_is_no_worse_and_beats_labels(stages, distilled, score):
    """Mean of three seeds, 400 images; the student takes the same steps on all three ways."""
    teacher = {
        "model": "cifar/resnet14x2",
        "train": {"epochs": 16, "batch_size": 64, "learning_rate": 0.1, "precision": "fp32"},
    }
    scheme = json.dumps({"name": "assistant", "model": "cifar/resnet14", "epochs": 12})
    sums = {"labels": 0.0, "direct": 0.0, "assisted": 0.0, "assistant": 0.0}
    for seed in range(3):
        common = (KD, f"distill.seed={seed}", "data.limit=400", "distill.epochs=8")
        direct = stages(*common, teacher=teacher)
        data = data_stage.data(direct)
        assisted = distilled(stages(*common, f"distill.scheme={scheme}", teacher=teacher))
        for way, checkpoint in (
            ("labels", train_stage.baseline(direct, data)),
            ("direct", distilled(direct).student),
            ("assisted", assisted.student),
            ("assistant", assisted.others["assistant"]),
        ):
            sums[way] += score(checkpoint, data) / 3
    assert sums["assistant"] > sums["assisted"] + 0.02, sums
    assert sums["assisted"] > sums["labels"] + 0.01, sums
    assert sums["assisted"] > sums["direct"] - 0.01, sums


def test_layers_that_the_assistant_does_not_have_are_refused_before_the_teacher_is_trained(stages, distilled):
    """The pairs are teacher and assistant, assistant and student; what is named is the assistant's."""
    named = {"method": "attention", "student_layers": "layer9", "teacher_layers": "layer2"}
    chain = stages(_scheme(objective=[named, {"method": "kd"}]), "teacher.train.seed=9")
    with pytest.raises(EdgekdError, match="layer9"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"]
    assert assistant.SCHEME.assisted
