"""Distillation of a student: the function that schemes compose, and that recovery and quantization reuse."""

from __future__ import annotations

import re
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

STAGE = Stage("distill", "Student, distilled", version=1, facts=_facts.network_facts)
OUTPUTS = Stage(
    "teacher-outputs",
    "Teacher's outputs",
    version=storing.VERSION,
    facts=lambda outputs: [f"{outputs.views} views per training image"],
)

STUDENT = Role("student", "Student, distilled", "student, distilled", shape="disc", colour="accent")


class ContinueTraining(Protocol):
    """Trains a pruned or quantized student further, as one stage.

    Args:
        stage: under which stage the training runs.
        student: the network to train further.
        settings: of the training.
        key: further values that the result depends on, for the stage's key.
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
    """The result of a scheme.

    Attributes:
        student: the network that the rest of the chain works on.
        others: further networks that are exported, evaluated and measured, by their role in the report.
        objective: for the further training of pruned and quantized students; None: the recipe's.
        learns_from: the data for that training; None: the recipe's.
        train: replaces that training, where it is more than distillation from one teacher.
        heads: the data sets of the student's additional heads, by name.
        titles: of the further networks in the report, by role; default: the role's name, capitalised.
    """

    student: Checkpoint
    others: Mapping[str, Checkpoint] = field(default_factory=dict)
    objective: tuple[TermSettings, ...] | None = None
    learns_from: Dataset | None = None
    train: ContinueTraining | None = None
    heads: Mapping[str, Dataset] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Continuation:
    """How a pruned or quantized student is trained further.

    Attributes:
        teacher: the teacher; in a scheme without one, the student before pruning.
        data: the training data.
        objective: used where the recipe's prune or quantize section has none.
        train: replaces the training, where it is more than distillation from one teacher.
        labelled: whether the scheme lets the student see the labels of all training images.
    """

    teacher: Checkpoint
    data: Dataset
    objective: tuple[TermSettings, ...]
    train: ContinueTraining | None = None
    labelled: bool = True


def role_named(name: str, title: str | None = None) -> Role:
    """The role of an additional network that a scheme makes.

    Args:
        name: part of the network's identity.
        title: in the report; None: the name in words.
    """
    return Role(name, title or in_words(name), "further network of the scheme", "triangle-down", "purple")


def in_words(name: str) -> str:
    """A title from a name: "student2" becomes "Student 2"."""
    return re.sub(r"(?<=[a-z])(?=\d)", " ", name.replace("-", " ")).capitalize()


@dataclass(frozen=True)
class Guidance:
    """What a student learns from.

    Attributes:
        teacher: the network whose outputs it learns from.
        data: the training and validation images.
        objective: the weighted losses.
        cross_view: whether the teacher sees another view of each image than the student.
    """

    teacher: Checkpoint
    data: Dataset
    objective: Sequence[TermSettings]
    cross_view: bool = False


def distilled(
    run: Run,
    student: ModelSettings | Checkpoint,
    guidance: Guidance,
    settings: StepSettings,
    *,
    stage: Stage = STAGE,
) -> Checkpoint:
    """A student distilled from one teacher, as a stage.

    Args:
        student: a new network, or a checkpoint to train further.
        guidance: the teacher, the images and the losses.
        settings: of the training.
        stage: the stage that this training is in the chain.

    Raises:
        ModelError: a network cannot be built, or its weights do not fit.
        UsageError: the objective does not fit the networks.
        TrainingError: see edgekd.training.fit.
    """
    teacher, data, objective = guidance.teacher, guidance.data, guidance.objective
    start: Mapping[str, Artifact] = {} if isinstance(student, ModelSettings) else {"student": student}
    key: Json = {
        **({"model": origin_of(student)} if isinstance(student, ModelSettings) else {}),
        "objective": objective_json(objective),
        **({"cross_view": True} if guidance.cross_view else {}),
    }
    wanted = settings.teacher_outputs if isinstance(settings, DistillSettings) else OutputSettings()
    stored = outputs(run, teacher, data, wanted, settings) if wanted.store == "on" else None
    if wanted.store == "auto":
        key["teacher_outputs"] = settings_json(wanted)

    def make(out: Path) -> Checkpoint:
        guide = TeacherSetup(teacher, precision_in(settings), guidance.cross_view, stored)
        if wanted.store == "auto":
            guide = _decided(run, guide, guidance, wanted, settings, out)
        setup = TrainingSetup(settings, run.recipe.data.augment, run.progress(stage.name))
        return distillation.distill(student, guide, objective, data, setup, out)

    return trained(
        run,
        stage,
        settings,
        key=key,
        inputs={"teacher": teacher, **start, "data": data, **({"outputs": stored} if stored else {})},
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
    """A network trained with any objective, as a stage.

    Args:
        settings: of the training; part of the key, as is the recipe's augmentation.
        key: further values that the result depends on.
        inputs: artifacts by role.
        make: trains the network and writes its checkpoint.
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
    """A teacher's stored outputs for the views that the seed in `settings` draws, as a stage.

    Every student that is trained with this teacher, this seed and this augmentation can read them.

    Args:
        teacher: the teacher.
        data: whose training images it is shown.
        wanted: how many views, and how many outputs of each.
        settings: of the training that reads them.
    """
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
    """The precision of the teacher's forward pass in a training with these settings."""
    return settings.teacher_precision if isinstance(settings, TeacherGuidedSettings) else "auto"


def _decided(
    run: Run,
    guide: TeacherSetup,
    guidance: Guidance,
    wanted: OutputSettings,
    settings: StepSettings,
    out: Path,
) -> TeacherSetup:
    """The teacher, with stored outputs where they make the training faster, and the measurement behind the choice."""
    if (why := distillation.why_live(guidance.objective, guide.cross_view)) is not None:
        return replace(guide, decision=storing.Decision(False, why))
    setup = TrainingSetup(settings, run.recipe.data.augment)
    decision = storing.decide(
        resume_folder(out), guide.teacher, guidance.data, wanted, setup, precision=guide.precision
    )
    stored = outputs(run, guide.teacher, guidance.data, wanted, settings) if decision.stored else None
    return replace(guide, outputs=stored, decision=decision)
