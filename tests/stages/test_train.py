from __future__ import annotations

import pytest
import torch

from edgekd.data.dataset import open_split
from edgekd.preflight import warnings_of
from edgekd.recipe.load import from_mapping
from edgekd.runs import Run
from edgekd.stages import data as data_stage
from edgekd.stages.train import baseline, teacher, teacher_stage, trained
from edgekd.store.store import Store
from edgekd.training.train import training_loader

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


def test_the_baseline_weighs_classes_as_the_student_does(tmp_path):
    objective = "distill.objective=[{method: kd}, {method: cross_entropy, class_weights: auto}]"
    run = Run(from_mapping(RECIPE, [objective]).settings, Store(tmp_path))
    images = data_stage.data(run)
    made = baseline(run, images)
    weights = made.details.training.class_weights
    counts = images.metrics["classes"]["train"].values()
    assert weights == pytest.approx([128 / (10 * count) for count in counts])
    assert [each for each in warnings_of(run, images) if "twice" in each] == []


def test_rare_classes_that_count_twice_are_warned_about(tmp_path):
    overrides = ["data.balance=sqrt", "teacher.train.class_weights=auto"]
    run = Run(from_mapping(RECIPE, overrides).settings, Store(tmp_path))
    images = data_stage.data(run)
    (found,) = [each for each in warnings_of(run, images) if "twice" in each]
    assert "balance: sqrt" in found and "auto in teacher.train multiplies" in found
    assert images.details.balance == "sqrt" and "drawn by class: sqrt" in data_stage.STAGE.facts(images)
    loader = training_loader(images, run.recipe.distill, run.recipe.data.augment)
    rows = torch.cat([batch.indices for batch in loader.epoch(0)])
    assert len(rows.unique()) < len(rows) == 128, "images are drawn with replacement"
    own = training_loader(images, run.recipe.distill, run.recipe.data.augment, split=open_split(images, "train"))
    assert len(torch.cat([batch.indices for batch in own.epoch(0)]).unique()) == 128
