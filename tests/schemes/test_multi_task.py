"""One trunk with one head per task, each with its own teacher."""

from __future__ import annotations

import json
from dataclasses import replace

import chains
import numpy as np
import pytest
import torch

from edgekd import pipeline, schemes
from edgekd.data.dataset import Dataset
from edgekd.distillation.distill import check_classes
from edgekd.errors import ModelError, RecipeError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.cost import cost
from edgekd.recipe.load import Recipe
from edgekd.recipe.settings import ModelSettings
from edgekd.runtime import load
from edgekd.runtime.preprocess import InputShape
from edgekd.schemes._heads import Columns
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.stages.distill import STAGE, Guidance
from edgekd.stages.distill import distilled as distill_stage
from edgekd.store.plan import Plan
from edgekd.training.fit import accuracy
from edgekd.training.start import start
from edgekd.training.train import evaluation_loader

STEPS = "batch_size: 64, precision: fp32"
TEACHER = f"teacher: {{model: cifar/resnet14, train: {{epochs: 8, {STEPS}}}}}"
GROUPS = "classes: {even: ['0', '2', '4', '6', '8'], odd: ['1', '3', '5', '7', '9']}"
PARITY = f"distill.scheme={{name: multi-task, single: false, tasks: {{parity: {{{GROUPS}, {TEACHER}}}}}}}"
DIGITS = "source: digits, image_size: 16, validation: 0.15"
OWN = f"data: {{{DIGITS}, test: 0.25, limit: 200}}, teacher: {{model: cifar/resnet8, train: {{epochs: 1, {STEPS}}}}}"
BRIEF = {"batch_size": 64, "precision": "fp32"}
EVEN = {"even": ["0", "2", "4", "6", "8"], "odd": ["1", "3", "5", "7", "9"]}
WEAK = {"model": "cifar/resnet8", "train": {"epochs": 1, **BRIEF}}
WEAK_TEACHER = f"teacher: {{model: cifar/resnet8, train: {{epochs: 1, {STEPS}}}}}"
# What is made is looked at, not how good it is.
SMALL = (
    f"distill.scheme={{name: multi-task, single: false, tasks: {{parity: {{{GROUPS}, {WEAK_TEACHER}}}}}}}",
    "data.limit=200",
    "teacher.train.epochs=1",
    "distill.epochs=2",
)


def _score(checkpoint, columns, data):
    """Of one head, on the test split."""
    loader = evaluation_loader(data, "test")
    return accuracy(Columns(checkpoints.load(checkpoint), columns), loader)


def test_one_trunk_has_the_outputs_of_both_tasks(stages, distilled):
    chain = stages(*SMALL)
    made = distilled(chain)
    by = {done.name: done.artifact for done in chain.store.log}
    assert made.heads == {"parity": by["data-parity"]}
    assert made.student.details.architecture.heads == {"parity": ("even", "odd")}
    assert made.student.classes == by["data"].classes
    validated = accuracy(
        Columns(checkpoints.load(made.student), slice(10, 12)), evaluation_loader(by["data-parity"], "validation")
    )
    assert made.student.metrics["tasks"] == {"parity": validated}
    assert "calibration" in by["teacher-parity"].metrics
    assert made.student.metrics.keys() >= {"history", "warnings", "throughput", "bf16"}
    assert made.student.metrics["history"][-1]["validation_accuracy"] == made.student.metrics["validation_accuracy"]
    assert made.student.metrics["teacher_precision"].keys() == {"main", "parity"}
    again = stages(*SMALL)
    distilled(again)
    assert {done.state for done in again.store.log} == {"reused"}


def test_the_head_of_another_task_adds_few_operations(stages, distilled):
    student = distilled(stages(*SMALL)).student
    one_task = build(student.details.architecture.model_copy(update={"num_classes": 10, "heads": {}}))
    assert student.metrics["macs"] < 1.01 * cost(one_task, InputShape(3, 16, 16))["macs"]


def test_a_student_of_several_heads_is_no_teacher_but_can_initialise_a_student(stages, distilled, tmp_path):
    chain = stages(*SMALL)
    made = distilled(chain)
    folder = {"model": "cifar/resnet8", "checkpoint": made.student.path}
    with pytest.raises(ModelError, match=r"several heads(?s:.)*parity(?s:.)*teacher.train"):
        distilled(stages(teacher={**folder, "checkpoint": str(made.student.path)}))
    with pytest.raises(ModelError, match="the teacher has several heads"):
        check_classes(made.student, data_stage.data(chain))
    begun = start(
        ModelSettings(**folder),
        data_stage.data(chain).details.preprocessing,
        data_stage.data(chain).classes,
        adopted=False,
    )
    assert begun.architecture.heads == {} and begun.architecture.num_classes == 10
    assert begun.network(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_pruned_and_quantized_networks_are_trained_further_on_all_tasks(stages):
    later = {
        "prune": {**BRIEF, "epochs": 1, "target": {"macs": 0.8}},
        "quantize": {**BRIEF, "mode": "qad", "epochs": 1, "calibration_images": 16},
    }
    made = chains.networks(stages(*SMALL, student={"model": "cifar/resnet8x2"}, **later))
    terms = {f"{task} {loss}" for task in ("main", "parity") for loss in ("kd", "cross_entropy")}
    for network in (made.student.student, made.pruned.recovered, made.quantized.trained):
        assert network.metrics["history"][0]["terms"].keys() == terms
        assert network.metrics["tasks"].keys() == {"parity"}
        assert network.details.architecture.heads == {"parity": ("even", "odd")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "prune"),
    [
        ({"model": "cifar/resnet8"}, None),
        (
            {"model": "torchvision/mobilenet_v3_small", "arguments": {"width_mult": 0.35}},
            {**BRIEF, "epochs": 1, "target": {"macs": 0.8}},
        ),
    ],
)
def test_all_heads_go_through_the_whole_chain(stages, tmp_path, student, prune):
    """Pruned, recovered, quantized and shipped in one graph, each head measured on its own test split."""
    scheme = {"name": "multi-task", "single": False, "tasks": {"parity": {"classes": EVEN, "teacher": WEAK}}}
    recipe = stages(
        teacher=WEAK,
        student=student,
        distill={**BRIEF, "epochs": 2, "baseline": False, "scheme": scheme},
        prune=prune,
        quantize={"mode": "qad", "batch_size": 64, "epochs": 1, "calibration_images": 32, "baseline": False},
        bench={"seconds": 0.05, "warmup_seconds": 0.0, "batch_sizes": [1]},
        export={"variants": ["fp32", "int8"], "tolerance": {"int8": {"difference": 2.0, "agreement": 0.01}}},
    ).recipe
    result = pipeline.run(Recipe(recipe, "", "heads"), tmp_path)
    made = result.made
    for network in (made.final, made.quantized.trained):
        assert network.metrics["history"][0]["terms"].keys() == {
            "main kd",
            "main cross_entropy",
            "parity kd",
            "parity cross_entropy",
        }
        assert network.metrics["tasks"].keys() == {"parity"}
        assert network.details.architecture.heads == {"parity": ("even", "odd")}
    model = load(result.bundle)
    model.verify()
    images = np.load(result.bundle / "vectors/images.npy")
    logits = checkpoints.load(made.final)(torch.from_numpy(np.load(result.bundle / "vectors/input.npy")))
    wanted = [("even", "odd")[int(row.argmax())] for row in logits[:, 10:12]]
    assert [answer.heads["parity"].label for answer in load(result.bundle, variant="fp32")(images)] == wanted
    rows = {row["model"]: row for row in made.scores.rows}
    shipped = "pruned-fp32" if prune else "student-fp32"
    parity = Dataset.load(next((tmp_path / "stages").glob("data-parity-*")))
    measured = _score(made.final, slice(10, 12), parity)
    assert rows[shipped]["heads"]["parity"]["accuracy"] == pytest.approx(measured)
    assert "heads" not in rows["teacher-fp32"]
    # Names of test images stay out of what ships.
    worst = rows[shipped]["heads"]["parity"]["worst"]
    assert worst and worst[0]["name"] not in (result.bundle / "bundle.json").read_text()
    shown = {entry["id"]: entry["heads"] for entry in json.loads((tmp_path / "report.json").read_text())["models"]}
    assert shown["quantized-int8"]["parity"]["accuracy"] == rows["quantized-int8"]["heads"]["parity"]["accuracy"]
    assert "parity: even, odd" in (result.bundle / "card.md").read_text()


def test_grouped_data_is_the_same_images_under_other_labels(stages, distilled):
    chain = stages(*SMALL)
    distilled(chain)
    by = {done.name: done.artifact for done in chain.store.log}
    fine, coarse = by["data"], by["data-parity"]
    assert coarse.classes == ("even", "odd")
    for split in ("train", "validation", "test"):
        assert np.array_equal(
            np.load(coarse.path / f"{split}-labels.npy"), np.load(fine.path / f"{split}-labels.npy") % 2
        )
        assert (coarse.path / f"{split}.npy").samefile(fine.path / f"{split}.npy")


def test_a_task_may_have_images_of_its_own(stages, distilled, score):
    scheme = f"distill.scheme={{name: multi-task, single: false, tasks: {{again: {{{OWN}}}}}}}"
    chain = stages(scheme, "distill.epochs=1", "distill.objective=[{method: kd}]", "data.limit=200")
    made = distilled(chain)
    assert made.student.metrics["tasks"].keys() == {"again"}
    assert made.student.metrics["history"][0]["terms"].keys() == {"main kd", "again kd"}


@pytest.mark.slow
def test_two_heads_match_two_students_at_half_the_cost(stages, distilled, score):
    differences, costs = [], []
    for seed in range(3):
        steps = ("distill.epochs=8", f"distill.seed={seed}")
        chain, offline = stages(PARITY, "distill.scheme.single=true", *steps), stages(*steps)
        made = distilled(chain)
        by = {done.name: done.artifact for done in chain.store.log}
        settings, data = offline.recipe.distill, by["data-parity"]
        stage, teacher = replace(STAGE, name="parity"), by["teacher-parity"]
        other = distill_stage(
            offline, offline.recipe.student, Guidance(teacher, data, settings.objective), settings, stage=stage
        )
        digits = score(made.student, by["data"]) - score(made.others["single"], by["data"])
        differences.append([digits, _score(made.student, slice(10, 12), data) - score(other, data)])
        costs.append(made.student.metrics["macs"] / (2 * other.metrics["macs"]))
        assert score(made.student, by["data"]) > 0.85 and _score(made.student, slice(10, 12), data) > 0.9
    assert (np.mean(differences, 0) > -0.01).all()
    assert max(costs) < 0.51


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (f"tasks: {{main: {{{GROUPS}, {TEACHER}}}}}", "two tasks are called main"),
        (f"tasks: {{a: {{{TEACHER}}}}}", "either classes .* or its own data"),
        (f"tasks: {{a: {{classes: {{x: ['1'], y: ['1']}}, {TEACHER}}}}}", "more than once: 1"),
        (f"tasks: {{a: {{data: {{source: digits}}, {TEACHER}}}}}", "must be prepared alike"),
        (f"tasks: {{a: {{data: {{{DIGITS}, test: 0.3}}, {TEACHER}}}}}", "in another split"),
        (f"tasks: {{a: {{{GROUPS}}}}}", "teacher"),
    ],
)
def test_tasks_that_cannot_be_trained_are_refused(stages, scheme, message):
    with pytest.raises(RecipeError, match=message):
        stages(f"distill.scheme={{name: multi-task, {scheme}}}")


@pytest.mark.parametrize("section", ["distill", "prune", "quantize"])
def test_losses_on_features_are_refused(stages, section):
    with pytest.raises(RecipeError, match=f"losses on logits only(?s:.)*{section}.objective"):
        stages(PARITY, f"{section}.objective=[{{method: fitnets}}]")


def test_groups_that_are_not_the_datas_are_refused_before_the_teacher_is_trained(stages, distilled):
    scheme = f"distill.scheme={{name: multi-task, tasks: {{a: {{classes: {{x: ['0'], y: ['1']}}, {TEACHER}}}}}}}"
    chain = stages(scheme, "teacher.train.seed=9")
    with pytest.raises(UsageError, match="in no group: 2"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"]


def test_a_plan_names_what_each_task_needs(stages, tmp_path):
    chain = stages(PARITY)
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    data = data_stage.data(plan)
    schemes.distill(plan, train_stage.teacher(plan, data), data)
    names = [stage.name for stage in plan.store.stages]
    assert names == ["data", "teacher", "data-parity", "teacher-parity", "distill"]


def test_a_tasks_teacher_that_cannot_be_built_is_refused_before_any_training(stages, distilled):
    teacher = "teacher: {model: cifar/resnet14, arguments: {wdith: 2}, train: {epochs: 1}}"
    scheme = f"distill.scheme={{name: multi-task, tasks: {{a: {{{GROUPS}, {teacher}}}}}}}"
    chain = stages(scheme, "teacher.train.seed=9")
    with pytest.raises(ModelError, match="wdith"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"]


def test_a_plan_keeps_own_images_apart(stages, planned, tmp_path):
    scheme = f"distill.scheme={{name: multi-task, single: false, tasks: {{again: {{{OWN}}}}}}}"
    names = list(planned(stages(scheme), tmp_path))
    assert names == [
        "data",
        "teacher",
        "data-again",
        "apart-again",
        "teacher-again",
        "distill",
    ]
