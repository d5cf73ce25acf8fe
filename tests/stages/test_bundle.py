from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from keys import Keys, Unmade

from edgekd.export.accuracy_budget import AccuracyBudget
from edgekd.export.model_id import ModelId
from edgekd.recipe.budget_settings import BudgetSettings
from edgekd.recipe.load import from_mapping
from edgekd.runs import Run
from edgekd.runtime import statistics
from edgekd.stages.bundle import STAGE, accuracy_budget, accuracy_lost, bundle, worse_than_baseline
from edgekd.stages.export import Exported

RECIPE = {
    "name": "shoes",
    "data": {"source": "digits"},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
}
STUDENT, TEACHER = ModelId("student", "fp32"), ModelId("teacher", "fp32")
INPUTS = ("student", "scores", "measured", "data")


def packed(*overrides, teacher="t", **changes):
    """The bundle stage of a student and a teacher in fp32, of which the student ships, and its key."""
    reached = []
    store = Keys()
    recipe = from_mapping(RECIPE, overrides).settings
    run = Run(recipe, store, reached=lambda stage, made: reached.append((stage.name, made)))
    exported = Exported({TEACHER: Unmade(teacher), STUDENT: Unmade("graph")}, {"fp32": STUDENT})
    made = bundle(run, exported, *(Unmade(changes.get(name, name)) for name in INPUTS))
    assert reached == [("bundle", made)]
    return store.requested[-1], made.digest


def test_only_the_graphs_that_ship_are_packed():
    stage, first = packed()
    assert set(stage.inputs) == {"student-fp32", "student", "evaluation", "measurements", "data"}
    assert stage.settings == {"name": "shoes", "variants": {"fp32": "student-fp32"}}
    assert packed(teacher="another")[1] == first


def test_new_accuracy_latency_or_name_is_another_bundle():
    changed = [packed(**{name: "new"})[1] for name in INPUTS]
    assert len({packed()[1], packed("name=boots")[1], *changed}) == 6


def test_the_budget_of_accuracy_is_part_of_the_bundle_and_the_others_are_not():
    stage, dropped = packed("budget={accuracy_drop: 0.01, size_mb: 4}")
    assert stage.settings["budget"] == [0.01, "teacher-fp32"]
    assert packed("budget={accuracy_drop: 0.02}")[1] != dropped != packed()[1] == packed("budget={size_mb: 4}")[1]


@pytest.mark.parametrize(
    ("budget", "teacher", "expected"),
    [
        ({"accuracy_drop": 0.01}, True, AccuracyBudget(0.01, TEACHER)),
        ({"accuracy_drop": 0.01}, False, AccuracyBudget(0.01, STUDENT)),
        ({"agreement": 0.98}, False, AccuracyBudget(0.98)),
        ({"size_mb": 4}, True, None),
    ],
)
def test_a_budget_compares_with_the_teacher_or_else_the_student_before_compression(budget, teacher, expected):
    recipe = SimpleNamespace(budget=BudgetSettings(**budget), teacher=object() if teacher else None)
    assert accuracy_budget(recipe) == expected
    assert accuracy_budget(SimpleNamespace(budget=None)) is None


def test_a_bundle_reports_its_graphs_and_its_size():
    def facts(*files):
        manifest = SimpleNamespace(files=dict.fromkeys((*files, "bundle.json", "card.md")))
        return STAGE.facts(SimpleNamespace(manifest=manifest, size_bytes=2_500_000))

    assert facts("model.fp32.onnx") == ["1 variant", "2.50 MB"]
    assert facts("model.fp32.onnx", "model.int8.onnx") == ["2 variants", "2.50 MB"]


def test_a_file_that_lost_much_against_the_student_is_named():
    right = np.arange(200) < 190
    rows = {
        ModelId("student", "fp32"): right,
        ModelId("pruned", "fp32"): right & (np.arange(200) >= 60),
        ModelId("quantized", "int8"): right & (np.arange(200) >= 4),
    }
    shipped = {"fp32": ModelId("pruned", "fp32"), "int8": ModelId("quantized", "int8")}
    scores = [{**name.to_json(), "correct": statistics.packed(each), "samples": 200} for name, each in rows.items()]
    (warning,) = accuracy_lost(shipped, scores)
    assert "pruned-fp32 (-30.0 points)" in warning and "quantized" not in warning.partition(". Compress less")[0]
    assert accuracy_lost({"int8": ModelId("quantized", "int8")}, scores) == ()
    assert accuracy_lost(shipped, scores[1:]) == ()


@pytest.mark.parametrize(
    ("pruned", "quantized", "named", "advised"),
    [
        (60, 60, "quantized-int8 (-30.0 points: -30.0 by pruning, +0.0 by int8)", "Prune less."),
        (0, 60, "quantized-int8 (-30.0 points: +0.0 by pruning, -30.0 by int8)", "Train longer."),
        (40, 80, "quantized-int8 (-40.0 points: -20.0 by pruning, -20.0 by int8)", "Prune less; train longer."),
        # Neither is certainly more than 5 points, both together are: the worse one.
        (12, 22, "quantized-int8 (-11.0 points: -6.0 by pruning, -5.0 by int8)", "Prune less."),
        (None, 60, "quantized-int8 (-30.0 points)", "Train longer."),
    ],
)
def test_each_stage_is_blamed_for_what_it_lost_itself(pruned, quantized, named, advised):
    rows = {ModelId("student", "fp32"): 0, ModelId("pruned", "fp32"): pruned, ModelId("quantized", "int8"): quantized}
    scores = [
        {**name.to_json(), "correct": statistics.packed(np.arange(200) >= wrong), "samples": 200}
        for name, wrong in rows.items()
        if wrong is not None
    ]
    advice = {"pruning": "prune less", "int8": "train longer"}
    (warning,) = accuracy_lost({"int8": ModelId("quantized", "int8")}, scores, advice=advice)
    assert f" {named}. {advised}" in warning


def test_a_student_that_distillation_certainly_harmed_is_named():
    right = np.arange(200) < 190
    rows = {"student": right & (np.arange(200) >= 60), "baseline": right, "teacher": right}
    scores = [
        {**ModelId(role, "fp32").to_json(), "correct": statistics.packed(each), "samples": 200}
        for role, each in rows.items()
    ]
    (warning,) = worse_than_baseline(scores)
    assert "labels only with the same settings: -30.0 points" in warning and "lower distill.learning_rate" in warning
    assert worse_than_baseline(scores[1:]) == worse_than_baseline(scores[:1]) == ()
    scores[0]["correct"] = statistics.packed(right & (np.arange(200) != 3))
    assert worse_than_baseline(scores) == ()  # one image is no certainty
