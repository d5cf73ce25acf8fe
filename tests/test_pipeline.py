from __future__ import annotations

import re

import pytest

from edgekd import pipeline
from edgekd.errors import UnknownNameError, UsageError
from edgekd.recipe.load import from_mapping

RECIPE = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16, "limit": 128},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 64}},
    "student": {"model": "cifar/resnet8"},
}


def test_the_chains_stages_stand_in_order_whether_or_not_the_recipe_asks_for_them():
    names = [stage.name for stage in pipeline.stages_of(from_mapping(RECIPE))]
    assert names[:4] == ["data", "preflight", "answers", "teacher"] and names[-1] == "bundle"
    assert names.index("distill") < names.index("prune") < names.index("quantize") < names.index("export")


def test_a_plan_writes_nothing_and_states_what_waits_for_what(tmp_path):
    planned = {stage.name: (stage.state, stage.why) for stage in pipeline.plan(from_mapping(RECIPE), tmp_path / "run")}
    state, why = planned["data"]
    assert state == "run" and re.match(r"not made yet: \d+ train, \d+ validation, \d+ test, 10 classes", why)
    assert planned["distill"] == ("planned", "after teacher") and planned["evaluate"][1] == "after export-student-fp16"
    assert not any(name.startswith(("prune", "quantize")) for name in planned)
    assert not (tmp_path / "run").exists()


def test_a_run_up_to_a_stage_ends_there_and_trains_no_baseline(tmp_path):
    made = pipeline.run_until("distill", from_mapping(RECIPE, ["distill.epochs=1", "distill.batch_size=64"]), tmp_path)
    assert made.manifest.stage.name == "distill"
    stages = {path.name.rpartition("-")[0] for path in (tmp_path / "stages").iterdir()}
    assert stages == {"data", "preflight", "teacher", "distill"}


@pytest.mark.parametrize(
    ("stage", "error", "message"),
    [
        ("distil", UnknownNameError, "did you mean 'distill'"),
        ("prune", UsageError, r"no prune section(?s:.)*--set 'prune="),
    ],
)
def test_a_stage_that_cannot_be_reached_is_refused_before_anything_runs(tmp_path, stage, error, message):
    with pytest.raises(error, match=message):
        pipeline.run_until(stage, from_mapping(RECIPE), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (None, [("teacher", 1, False), ("baseline", 2, False), ("distill", 2, True), ("quantize", 2, True)]),
        ("distill", [("teacher", 1, False), ("distill", 2, True)]),
    ],
)
def test_the_console_is_told_which_trainings_come(tmp_path, until, expected):
    class Console:
        def expect(self, trainings):
            self.trainings = trainings
            raise KeyboardInterrupt

    console, recipe = Console(), from_mapping({**RECIPE, "quantize": {}}, ["distill.epochs=2"])
    with pytest.raises(KeyboardInterrupt):
        if until is None:
            pipeline.run(recipe, tmp_path, console=console)
        else:
            pipeline.run_until(until, recipe, tmp_path, console=console)
    assert [(each.name, each.epochs, each.teacher) for each in console.trainings] == expected
