"""What every scheme has to do: its keys, its plans, and one epoch on a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from keys import Keys, Unmade

from edgekd import pipeline, plugins, schemes
from edgekd.cli._terminal import Terminal
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import Recipe
from edgekd.recipe.settings import RecipeSettings
from edgekd.runs import Run
from edgekd.runtime import load
from edgekd.store.artifacts import Json

WEAK = {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 32, "seed": 1}}
PARITY = {"even": ["0", "2", "4", "6", "8"], "odd": ["1", "3", "5", "7", "9"]}
ROUNDS = {"rounds": 1, "clients": 2, "first_epochs": 1, "local_epochs": 1, "public_epochs": 1, "views": 1}
# The least that a recipe needs for each, in as little as can be trained.
TINY: dict[str, dict[str, Any]] = {
    "assistant": {"model": "cifar/resnet8x2", "epochs": 1},
    "born-again": {},
    "data-free": {"images": 20, "iterations": 1, "batch_size": 10},
    "ensemble": {"teachers": [WEAK]},
    "federated": ROUNDS,
    "hybrid": {},
    "last-epoch": {},
    "multi-task": {"single": False, "tasks": {"parity": {"classes": PARITY, "teacher": WEAK}}},
    "offline": {},
    "online": {},
    "semi-supervised": {"labels": 50},
    "task-conditioned": {"groups": 2, "single": False},
    "teacher-free": {},
}
every_scheme = pytest.mark.parametrize("scheme", list(TINY))


def recipe_of(stages, scheme: str, **sections: Any) -> RecipeSettings:
    needs_teacher = plugins.load("scheme", scheme).needs_teacher
    given: Json = {"distill": {"epochs": 1, "batch_size": 32, "scheme": {"name": scheme, **TINY[scheme]}}, **sections}
    small = ("data.limit=128", "data.image_size=8")
    chain = stages(
        *small,
        *(("teacher.train.epochs=1",) if needs_teacher else ()),
        **given,
        **({} if needs_teacher else {"teacher": None}),
    )
    return chain.recipe


def student_key(recipe: RecipeSettings, folder) -> str:
    """With data and teacher given: what a teacher was trained on must not hide what the student's own key lacks."""
    chain = Run(recipe, Keys(folder))
    teacher: Any = Unmade("teacher") if recipe.teacher is not None else None
    data: Any = Unmade("data")
    return schemes.distill(chain, teacher, data).student.digest


def test_there_is_a_tiny_recipe_of_every_scheme_that_trains():
    # The one that does not: test_none.py.
    assert sorted(TINY) == [name for name in sorted(plugins.names("scheme")) if plugins.load("scheme", name).trains]


@every_scheme
def test_how_images_are_varied_is_in_the_students_key(stages, tmp_path, scheme):
    recipe = recipe_of(stages, scheme)
    varied = recipe.data.model_copy(update={"augment": recipe.data.augment.model_copy(update={"padding": 3})})
    plain, again = student_key(recipe, tmp_path), student_key(recipe, tmp_path)
    assert plain == again != student_key(recipe.model_copy(update={"data": varied}), tmp_path)


@every_scheme
def test_a_seed_is_in_the_students_key(stages, tmp_path, scheme):
    recipe = recipe_of(stages, scheme)
    seeded = recipe.distill.model_copy(update={"seed": 5})
    assert student_key(recipe, tmp_path) != student_key(recipe.model_copy(update={"distill": seeded}), tmp_path)


@every_scheme
def test_a_plan_runs_nothing_and_reads_nothing(stages, planned, tmp_path, scheme):
    chain = replace(stages(), recipe=recipe_of(stages, scheme))
    states = planned(chain, tmp_path / "plan")
    assert states.pop("data") == "run" and set(states.values()) <= {"run", "planned"}
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("scheme", ["offline", "multi-task"])
def test_a_plan_shows_that_recovery_needs_the_pruned_network(stages, tmp_path, scheme):
    recipe = recipe_of(stages, scheme, prune={}, student={"model": "cifar/resnet8x2"})
    why = {stage.name: stage.why for stage in pipeline.plan(Recipe(recipe, "", ""), tmp_path)}
    assert why["prune"] == "after distill" and why["recover"] == "after prune"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@every_scheme
def test_an_epoch_on_a_gpu(stages, distilled, scheme):
    chain = replace(stages(), recipe=recipe_of(stages, scheme))
    made = distilled(chain)
    for checkpoint in (made.student, *made.others.values()):
        assert isinstance(checkpoint, Checkpoint)
        assert 0.0 <= checkpoint.metrics["validation_accuracy"] <= 1.0


@pytest.mark.slow
@every_scheme
def test_the_whole_chain_ends_in_a_bundle_that_verifies_and_a_report(stages, tmp_path, scheme):
    """Trained, calibrated, exported, measured, packed: what the scheme made beside the student is in the report too."""
    sections = {
        "quantize": {"mode": "ptq", "calibration_images": 16},
        "bench": {"seconds": 0.05, "warmup_seconds": 0.0, "batch_sizes": [1]},
        "export": {"variants": ["fp32", "int8"], "tolerance": {"int8": {"difference": 2.0, "agreement": 0.01}}},
    }
    recipe = recipe_of(stages, scheme, **sections)
    terminal = Terminal(quiet=True)
    result = pipeline.run(Recipe(recipe, "", f"scheme {scheme}"), tmp_path, listener=terminal, console=terminal)
    load(result.bundle).verify()
    shown = {model["id"].partition("-")[0] for model in json.loads((tmp_path / "report.json").read_text())["models"]}
    assert {role.name for role in result.made.roles} <= shown
    assert result.report.read_text().count("<svg") > 0
