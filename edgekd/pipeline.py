"""The chain: from a recipe to a measured bundle and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.artifacts import Bundle, Checkpoint, Dataset, Evaluation, Measurements, OnnxModel, write_json
from edgekd.export.bundle import publish
from edgekd.recipe import Recipe
from edgekd.stages import Console, Stages
from edgekd.store import Listener, Plan, PlannedStage, Store


@dataclass(frozen=True)
class Made:
    """Every artifact up to the bundle. `models` are named role-variant: teacher-fp32, student-fp16, …"""

    data: Dataset
    teacher: Checkpoint
    baseline: Checkpoint | None
    student: Checkpoint
    models: Mapping[str, OnnxModel]
    evaluation: Evaluation
    bundle: Bundle


@dataclass(frozen=True)
class RunResult:
    """What a run left in `folder`: `bundle` is what an app loads, `report` what a person opens."""

    made: Made
    measurements: Measurements
    folder: Path
    bundle: Path
    report: Path


def chain(stages: Stages) -> tuple[Made, Measurements]:
    made = chain_to_bundle(stages)
    return made, stages.measured(made.models)


def chain_to_bundle(stages: Stages) -> Made:
    data = stages.data()
    stages.check_models(data)
    teacher = stages.teacher(data)
    baseline = stages.baseline(data)
    student = stages.student(teacher, data)
    models = {"teacher-fp32": stages.exported("teacher", teacher, data)}
    if baseline is not None:
        models["baseline-fp32"] = stages.exported("baseline", baseline, data)
    models["student-fp32"] = stages.exported("student", student, data)
    if "fp16" in stages.recipe.export.variants:
        models["student-fp16"] = stages.halved(models["student-fp32"], data)
    scores = stages.evaluated(models, data)
    variants: dict[str, OnnxModel] = {
        variant: models[f"student-{variant}"] for variant in stages.recipe.export.variants
    }
    bundle = stages.bundled(variants, student, scores, data)
    return Made(data, teacher, baseline, student, models, scores, bundle)


def run(recipe: Recipe, folder: Path, *, listener: Listener | None = None, console: Console | None = None) -> RunResult:
    """Run a recipe, or what an earlier run of it left undone.

    Raises:
        RunLockedError: another run is working in the folder.
        EdgekdError: as each stage says; what was finished stays.
    """
    from edgekd.report.collect import collect
    from edgekd.report.html import write

    store = Store(folder, listener)
    with store.lock():
        made, measurements = chain(Stages(recipe.settings, store, console))
        publish(made.bundle, folder / "bundle")
        record = collect(recipe, made, measurements, store.log, folder / "bundle")
        write_json(folder / "report.json", record)
        report = write(record, folder / "report.html")
    return RunResult(made, measurements, folder, folder / "bundle", report)


def plan(recipe: Recipe, folder: Path) -> list[PlannedStage]:
    """What run() would do, and why. Runs nothing, writes nothing.

    Raises:
        ArtifactError: a finished stage's files were changed.
    """
    store = Plan(folder)
    chain(Stages(recipe.settings, store))
    return store.stages
