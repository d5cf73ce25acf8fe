"""What a distilled student's key depends on, and when the teacher's outputs are a stage of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from keys import Keys, Unmade

from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import OutputSettings, TermSettings
from edgekd.runs import Run, Stage
from edgekd.stages.distill import Guidance, distilled, outputs, precision_in, role_named

RECIPE = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet14", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
    "distill": {"epochs": 2},
}
OTHER = (TermSettings(method="cross_entropy"),)


@pytest.fixture
def guidance():
    return Guidance(Unmade("teacher"), Unmade("data"), from_mapping(RECIPE).settings.distill.objective)


def requested(guidance, *overrides, student=None, **stage):
    """The stages that a distilled student requests, the student's own last, and its key."""
    store = Keys()
    run = Run(from_mapping(RECIPE, overrides).settings, store)
    network = run.recipe.student if student is None else student
    return store.requested, distilled(run, network, guidance, run.recipe.distill, **stage).digest


def key(guidance, *overrides):
    return requested(guidance, *overrides)[1]


def test_equal_guidance_and_settings_give_an_equal_key(guidance):
    assert key(guidance) == key(replace(guidance))


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": Unmade("another teacher")},
        {"data": Unmade("other data")},
        {"objective": OTHER},
        {"cross_view": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_guides_a_student_is_in_its_key(guidance, change):
    assert key(replace(guidance, **change)) != key(guidance)


@pytest.mark.parametrize(
    "override",
    [
        "distill.epochs=3",
        "distill.seed=4",
        "distill.learning_rate=0.03",
        "distill.teacher_precision=fp32",
        "data.augment.padding=3",
        "student.model=cifar/resnet20",
    ],
)
def test_the_settings_of_the_training_are_in_its_key(guidance, override):
    assert key(guidance, override) != key(guidance)


def test_a_checkpoint_to_train_further_is_an_input_and_replaces_the_model(guidance):
    new, _ = requested(guidance)
    again, _ = requested(guidance, student=Unmade("pruned"))
    assert "model" in new[-1].settings and "student" not in new[-1].inputs
    assert "model" not in again[-1].settings and again[-1].inputs["student"] == "pruned"


def test_the_stage_that_it_is_in_the_chain_is_in_its_key(guidance):
    stages, other = requested(guidance, stage=Stage("recover", "Recovered", version=1))
    assert stages[-1].name == "recover" and other != key(guidance)


def test_stored_outputs_are_a_stage_before_the_student_and_its_input(guidance):
    stored, with_outputs = requested(guidance, "distill.teacher_outputs=on")
    assert [stage.name for stage in stored] == ["teacher-outputs", "distill"]
    assert set(stored[-1].inputs) == {"teacher", "data", "outputs"}
    live, without = requested(guidance)
    assert [stage.name for stage in live] == ["distill"] and "outputs" not in live[-1].inputs
    assert with_outputs != without


def test_where_timing_decides_about_stored_outputs_their_settings_are_in_the_key(guidance):
    timed, first = requested(guidance, "distill.teacher_outputs=auto")
    assert [stage.name for stage in timed] == ["distill"] and timed[-1].settings["teacher_outputs"]["store"] == "auto"
    fewer = key(guidance, "distill.teacher_outputs.store=auto", "distill.teacher_outputs.views=2")
    assert len({first, key(guidance), fewer}) == 3


def outputs_key(*overrides, **wanted):
    run = Run(from_mapping(RECIPE, overrides).settings, Keys())
    return outputs(
        run, Unmade("teacher"), Unmade("data"), OutputSettings(store="on", **wanted), run.recipe.distill
    ).digest


def test_students_with_another_objective_or_length_share_the_teachers_outputs():
    assert outputs_key() == outputs_key("distill.epochs=9") == outputs_key("distill.learning_rate=0.5")
    others = [
        outputs_key("distill.seed=1"),
        outputs_key("data.augment.padding=3"),
        outputs_key("distill.teacher_precision=fp32"),
        outputs_key(views=3),
        outputs_key(top_k=3),
    ]
    assert len({outputs_key(), *others}) == 1 + len(others)


def test_a_training_that_has_no_teacher_precision_lets_the_host_choose():
    recipe = from_mapping(RECIPE, ["distill.teacher_precision=fp32"]).settings
    assert precision_in(recipe.distill) == "fp32"
    assert recipe.teacher is not None and recipe.teacher.train is not None
    assert precision_in(recipe.teacher.train) == "auto"


@pytest.mark.parametrize(
    ("name", "title"),
    [("first-assistant", "First assistant"), ("student2", "Student 2"), ("generation10", "Generation 10")],
)
def test_a_schemes_further_network_is_titled_by_its_name(name, title):
    role = role_named(name)
    assert (role.name, role.title) == (name, title)
