"""Training on labels: the teacher, trained here or used as is, and the baseline that distillation is compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from edgekd.data.dataset import Dataset
from edgekd.distillation import teachers
from edgekd.distillation.method import method_named
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import AugmentSettings, ModelSettings, TeacherSettings, TrainSettings
from edgekd.runs import Role, Run, Stage, settings_json
from edgekd.stages import _facts
from edgekd.training import train as training
from edgekd.training.train import TrainingSetup

STAGE = Stage("teacher", "Teacher", version=1, facts=_facts.network_facts)
BASELINE_STAGE = Stage("baseline", "Baseline (labels only)", version=1, compares=True, facts=_facts.network_facts)

TEACHER = Role("teacher", "Teacher", "teacher", shape="square", colour="ink", part="teacher")
BASELINE = Role(
    "baseline",
    "Baseline (labels only)",
    "baseline: the student trained from labels only",
    shape="diamond",
    colour="grey",
    part="baseline",
)


def teacher(run: Run, data: Dataset) -> Checkpoint | None:
    """The recipe's teacher; None where the recipe has none. Raises as teacher_stage()."""
    settings = run.recipe.teacher
    return run.finish(STAGE, None if settings is None else teacher_stage(run, STAGE.name, settings, data))


def baseline(run: Run, data: Dataset) -> Checkpoint | None:
    """The student trained on labels only, with the same settings; None where the recipe turns it off.

    It takes over weights of the classes, but no label smoothing, which replaces a part of what a teacher does.
    """
    settings = run.recipe.distill
    weights = next(filter(None, (method_named(t.method).class_weights_of(t) for t in settings.objective)), None)
    alone = settings.training.model_copy(update={"class_weights": weights})
    network = trained(run, run.recipe.student, alone, data) if settings.baseline else None
    return run.finish(BASELINE_STAGE, network)


def teacher_stage(
    run: Run, name: str, settings: TeacherSettings, data: Dataset, *, augment: AugmentSettings | None = None
) -> Checkpoint:
    """A teacher, trained here or used as is, as a stage called `name`.

    Args:
        name: of the stage.
        settings: of the teacher.
        data: the images.
        augment: augmentation of its training images; default: the recipe's.

    Raises:
        ModelError: it cannot be built, its weights do not fit, or it has other classes than the data.
        TrainingError: see edgekd.training.fit.
    """
    measure = partial(teachers.calibration_of, data=data)
    stage = STAGE if name == STAGE.name else replace(STAGE, name=name, title=name.replace("-", " ").capitalize())
    if settings.train is not None:
        return _trained(run, stage, settings, settings.train, data, augment=augment, measure=measure)
    return run.stage(
        stage,
        Checkpoint,
        settings={"model": training.origin_of(settings)},
        inputs={"data": data},
        make=lambda out: training.adopt(settings, data, out, measure=measure),
    )


def trained(
    run: Run, model: ModelSettings, settings: TrainSettings, data: Dataset, *, stage: Stage = BASELINE_STAGE
) -> Checkpoint:
    """A network trained on labels only, as the baseline or as another stage. Raises ModelError or TrainingError."""
    return _trained(run, stage, model, settings, data)


def _trained(
    run: Run,
    stage: Stage,
    model: ModelSettings,
    settings: TrainSettings,
    data: Dataset,
    *,
    augment: AugmentSettings | None = None,
    measure: training.Measure | None = None,
) -> Checkpoint:
    setup = TrainingSetup(settings, augment or run.recipe.data.augment, run.progress(stage.name))
    return run.stage(
        stage,
        Checkpoint,
        settings={
            **settings_json(settings),
            "model": training.origin_of(model),
            "augment": settings_json(setup.augment),
        },
        inputs={"data": data},
        make=lambda out: training.train(model, data, setup, out, measure=measure),
    )
