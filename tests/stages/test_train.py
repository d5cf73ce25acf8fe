from __future__ import annotations

from edgekd.recipe.load import from_mapping
from edgekd.runs import Run
from edgekd.stages import data as data_stage
from edgekd.stages.train import baseline, teacher, teacher_stage, trained
from edgekd.store.store import Store

RECIPE = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16, "limit": 128},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 64}},
    "student": {"model": "cifar/resnet8"},
    "distill": {"epochs": 1, "batch_size": 64},
}


def test_teachers_are_stages_of_their_own_and_equal_ones_are_trained_once(tmp_path):
    run = Run(from_mapping(RECIPE).settings, Store(tmp_path))
    images = data_stage.data(run)
    first = teacher(run, images)
    second = teacher_stage(run, "teacher-left-out", run.recipe.teacher, images)
    assert [(done.name, done.title, done.state) for done in run.store.log[1:]] == [
        ("teacher", "Teacher", "run"),
        ("teacher-left-out", "Teacher left out", "run"),
    ]
    assert teacher(run, images).digest == first.digest and run.store.log[-1].state == "reused"
    assert second.weights.read_bytes() == first.weights.read_bytes()


def test_the_baseline_is_the_student_in_the_same_steps_on_labels_only(tmp_path):
    run = Run(from_mapping(RECIPE).settings, Store(tmp_path))
    images = data_stage.data(run)
    made = baseline(run, images)
    assert (made.details.training.epochs, made.manifest.stage.name) == (1, "baseline")
    assert trained(run, run.recipe.student, run.recipe.distill.training, images).digest == made.digest
    without = Run(from_mapping(RECIPE, ["distill.baseline=false"]).settings, Store(tmp_path))
    assert baseline(without, images) is None


def test_a_scheme_without_a_teacher_has_none(tmp_path):
    reached = []
    recipe = from_mapping({key: value for key, value in RECIPE.items() if key != "teacher"}, ["distill.scheme=online"])
    run = Run(recipe.settings, Store(tmp_path), reached=lambda stage, made: reached.append((stage.name, made)))
    assert teacher(run, None) is None and reached == [("teacher", None)]
