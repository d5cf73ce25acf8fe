"""A student on a teacher's answers: as schemes compose it, and as recovery goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from edgekd.data.dataset import Dataset
from edgekd.distillation import distill as distillation
from edgekd.distillation import outputs as storing
from edgekd.distillation.distill import TeacherSetup
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.outputs import TeacherOutputs
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import (
    DistillSettings,
    ModelSettings,
    OutputSettings,
    Precision,
    RecoverySettings,
    StepSettings,
    TeacherGuidedSettings,
    TermSettings,
)
from edgekd.runs import Role, Run, Stage, settings_json
from edgekd.stages import _facts
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import resume_folder
from edgekd.training.fit import BeginEpoch
from edgekd.training.train import TrainingSetup, origin_of

STAGE = Stage("distill", "Student, distilled", version=1, facts=_facts.of_network)
OUTPUTS = Stage(
    "teacher-outputs",
    "Teacher's outputs",
    version=storing.VERSION,
    facts=lambda outputs: [f"{outputs.views} views of each training image"],
)

STUDENT = Role("student", "Student, distilled", "student, distilled", shape="disc", colour="accent")


class ContinueTraining(Protocol):
    """Trains a pruned or quantized student further, as one stage.

    Args:
        settings: how it is trained.
        key: what else decides about it, for its key.
        begin_epoch: see fit().
    """

    def __call__(
        self,
        stage: Stage,
        student: Checkpoint,
        settings: RecoverySettings,
        *,
        key: Json | None = None,
        begin_epoch: BeginEpoch | None = None,
    ) -> Checkpoint: ...


@dataclass(frozen=True)
class Distilled:
    """What a scheme leaves.

    Attributes:
        student: what goes on through the chain.
        others: networks that are exported, scored and measured beside it, by their role in the report.
        objective: what pruned and quantized students go on learning; None: the recipe's.
        learns_from: the images that they may see; None: all of the recipe's.
        train: how they go on learning, where that is not on one teacher's answers.
        heads: the data of the student's further heads, by name.
    """

    student: Checkpoint
    others: Mapping[str, Checkpoint] = field(default_factory=dict)
    objective: tuple[TermSettings, ...] | None = None
    learns_from: Dataset | None = None
    train: ContinueTraining | None = None
    heads: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True)
class Continuation:
    """How a pruned or quantized student goes on learning.

    Attributes:
        teacher: whose answers it learns; without a teacher the student's own before pruning.
        data: the images that it may see.
        objective: where the recipe's section has none of its own.
        train: how, where that is not on one teacher's answers.
    """

    teacher: Checkpoint
    data: Dataset
    objective: tuple[TermSettings, ...]
    train: ContinueTraining | None = None


def role_named(name: str) -> Role:
    """The role of a network that a scheme makes beside the student."""
    return Role(
        name, name.replace("-", " ").capitalize(), "made on the way, or beside the student", "triangle-down", "purple"
    )


def distilled(
    run: Run,
    student: ModelSettings | Checkpoint,
    teacher: Checkpoint,
    data: Dataset,
    settings: StepSettings,
    objective: Sequence[TermSettings],
    *,
    stage: Stage = STAGE,
    cross_view: bool = False,
) -> Checkpoint:
    """A student on one teacher's answers, from the start or from a checkpoint.

    Args:
        stage: what it is in the chain.
        cross_view: the teacher answers to another view of each image.
    """
    begun: Mapping[str, Artifact] = {} if isinstance(student, ModelSettings) else {"student": student}
    key: Json = {
        **({"model": origin_of(student)} if isinstance(student, ModelSettings) else {}),
        "objective": objective_json(objective),
        **({"cross_view": True} if cross_view else {}),
    }
    wanted = settings.teacher_outputs if isinstance(settings, DistillSettings) else OutputSettings()
    stored = outputs(run, teacher, data, wanted, settings) if wanted.store == "on" else None
    if wanted.store == "auto":
        key["teacher_outputs"] = settings_json(wanted)

    def make(out: Path) -> Checkpoint:
        answers = TeacherSetup(teacher, precision_in(settings), cross_view, stored)
        if wanted.store == "auto":
            answers = _decided(run, answers, data, wanted, settings, objective, out)
        setup = TrainingSetup(settings, run.recipe.data.augment, run.progress(stage.name))
        return distillation.distill(student, answers, objective, data, setup, out)

    return trained(
        run,
        stage,
        settings,
        key=key,
        inputs={"teacher": teacher, **begun, "data": data, **({"outputs": stored} if stored else {})},
        make=make,
    )


def trained(
    run: Run,
    stage: Stage,
    settings: StepSettings,
    *,
    key: Json,
    inputs: Mapping[str, Artifact],
    make: Callable[[Path], Checkpoint],
) -> Checkpoint:
    """A network that is trained with an objective of its own.

    Args:
        settings: its steps are part of the key, and so is how the recipe varies images.
        key: what else decides about it.
    """
    steps = settings.model_dump(mode="json", include=set(TeacherGuidedSettings.model_fields))
    return run.stage(
        stage,
        Checkpoint,
        settings={**steps, **key, "augment": settings_json(run.recipe.data.augment)},
        inputs=inputs,
        make=make,
    )


def outputs(
    run: Run, teacher: Checkpoint, data: Dataset, wanted: OutputSettings, settings: StepSettings
) -> TeacherOutputs:
    """A teacher's answers to the views that `settings`' seed draws; any student of it may read them."""
    augment, precision = run.recipe.data.augment, precision_in(settings)
    setup = TrainingSetup(settings, augment, run.progress(OUTPUTS.name))
    return run.stage(
        OUTPUTS,
        TeacherOutputs,
        settings={
            "views": wanted.views,
            "top_k": wanted.top_k,
            "seed": settings.seed,
            "augment": settings_json(augment),
            "teacher_precision": precision,
        },
        inputs={"teacher": teacher, "data": data},
        make=lambda out: storing.store(teacher, data, wanted, setup, out, precision=precision),
    )


def precision_in(settings: StepSettings) -> Precision:
    """In which a teacher beside this training answers."""
    return settings.teacher_precision if isinstance(settings, TeacherGuidedSettings) else "auto"


def _decided(
    run: Run,
    answers: TeacherSetup,
    data: Dataset,
    wanted: OutputSettings,
    settings: StepSettings,
    objective: Sequence[TermSettings],
    out: Path,
) -> TeacherSetup:
    """Stored answers where that pays, with what decided it."""
    if (why := distillation.why_live(objective, answers.cross_view)) is not None:
        return replace(answers, decision=storing.Decision(False, why))
    setup = TrainingSetup(settings, run.recipe.data.augment)
    decision = storing.decide(resume_folder(out), answers.teacher, data, wanted, setup, precision=answers.precision)
    stored = outputs(run, answers.teacher, data, wanted, settings) if decision.stored else None
    return replace(answers, outputs=stored, decision=decision)
