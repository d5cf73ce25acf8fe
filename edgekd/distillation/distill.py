"""A student that learns from one teacher: live, or from stored outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from torch import nn

from edgekd.data.dataset import Dataset, class_counts
from edgekd.data.loader import Batch
from edgekd.distillation.classifier_reuse import reuse_teacher_classifier
from edgekd.distillation.objective import Distillation, Outputs, Source, Teacher
from edgekd.distillation.objective_settings import changing_student, objective_json, on_logits
from edgekd.distillation.outputs import Decision, Stored, TeacherOutputs
from edgekd.distillation.teachers import teacher_warnings as teacher_warnings
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import ModelSettings, Precision, TermSettings
from edgekd.store.artifacts import Json
from edgekd.training.bf16 import inference_precision
from edgekd.training.host import best_device
from edgekd.training.train import Learner, Record, TrainingSetup, train_with, training_loader


@dataclass(frozen=True)
class TeacherSetup:
    """The teacher of a training, and how its outputs are computed.

    Attributes:
        teacher: its checkpoint.
        precision: of its forward pass; auto: bf16 if that was measured to keep its predictions.
        cross_view: whether it sees another view of each image than the student.
        outputs: its stored outputs; None: it runs in every step.
        decision: why they are stored or not, if that was timed.
    """

    teacher: Checkpoint
    precision: Precision = "auto"
    cross_view: bool = False
    outputs: TeacherOutputs | None = None
    decision: Decision | None = None

    def outputs_json(self) -> Json:
        """What a manifest holds about the stored outputs."""
        return {
            "digest": self.outputs.digest if self.outputs else None,
            "decision": asdict(self.decision) if self.decision else None,
        }


def distill(
    learner: ModelSettings | Checkpoint,
    guide: TeacherSetup,
    objective: Sequence[TermSettings],
    data: Dataset,
    setup: TrainingSetup,
    out: Path,
) -> Checkpoint:
    """Train a student on a teacher's outputs, or train one further: after pruning, or through quantizers.

    Args:
        learner: the student: a new network, or a checkpoint to train further.
        guide: the teacher, and how its outputs are computed.
        objective: the weighted terms.
        data: the training and validation images.
        setup: of the training.
        out: an empty folder, which becomes the student's checkpoint.

    Raises:
        ModelError: the student cannot be built, the teacher has other classes, or a layer gives no feature.
        UnknownNameError: the objective names an unknown layer.
        TrainingError: see fit().
    """
    teacher, outputs, settings = guide.teacher, guide.outputs, setup.settings
    check_classes(teacher, data)
    network = checkpoints.load(teacher)
    source: Source | None = Stored(outputs, best_device()) if outputs else None
    precision, why = inference_precision(teacher, network, best_device(), guide.precision)

    def changed(model: nn.Module, architecture: Architecture) -> Architecture:
        return reuse_teacher_classifier(model, network, architecture, objective, data.details.preprocessing.shape)

    def objective_of(model: nn.Module) -> Distillation:
        live = Live(precision, guide.cross_view, settings.compile)
        return objective_over(model, network, data, objective, source=source, live=live)

    return train_with(
        objective_of,
        Learner(learner, change=changed if changing_student(objective) else None),
        data,
        setup,
        out,
        loader=training_loader(
            data, settings, setup.augment, views=outputs.views if outputs else None, second_view=guide.cross_view
        ),
        record=Record(
            training={"teacher": teacher.digest, "objective": objective_json(objective)},
            warnings=teacher_warnings(teacher, objective) if isinstance(learner, ModelSettings) else (),
            of_objective=lambda _: {
                "teacher_precision": {"precision": precision, "why": why} if source is None else None,
                "teacher_outputs": guide.outputs_json(),
            },
        ),
    )


@dataclass(frozen=True)
class Live:
    """How a teacher runs beside the student.

    Attributes:
        precision: of its forward pass.
        cross_view: whether it sees another view of each image than the student.
        compile: whether it runs through torch.compile; not with layers.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    cross_view: bool = False
    compile: bool = False


def objective_over(
    student: nn.Module,
    teacher: nn.Module | None,
    data: Dataset,
    objective: Sequence[TermSettings],
    *,
    source: Source | None = None,
    live: Live | None = None,
) -> Distillation:
    """What fit() minimises for a student with one teacher.

    Args:
        student: the network to train.
        teacher: None only if a source is given and no term compares layers.
        data: for the size and the number of its images.
        objective: the weighted terms.
        source: of the teacher's outputs; None: the teacher runs live.
        live: how the teacher runs.

    Raises:
        UsageError, UnknownNameError, ModelError: see build_terms().
    """
    live, terms = live or Live(), build_terms(objective, networks_for(student, teacher, data))
    if source is None:
        assert teacher is not None
        source = Teacher(teacher, best_device(), live.precision, terms.teacher_layers, use_compile=live.compile)
    return Distillation(student, _OtherView(source) if live.cross_view else source, terms)


def why_live(objective: Sequence[TermSettings], cross_view: bool) -> str | None:
    """Why the teacher must run live; None if stored logits suffice.

    Args:
        objective: the terms of the training.
        cross_view: whether the teacher sees another view of each image than the student.
    """
    if cross_view:
        return "the teacher sees another view than the student"
    featured = [term.method for term in objective if term not in on_logits(objective)]
    return f"{', '.join(featured)} compares the teacher's layers" if featured else None


def networks_for(student: nn.Module, teacher: nn.Module | None, data: Dataset) -> Networks:
    """What build_terms() needs to know of two networks and their data.

    Args:
        teacher: None if no term compares its layers.
        data: for the size and the number of its images.
    """
    shape, images, classes = data.details.preprocessing.shape, data.details.counts["train"], len(data.classes)
    return Networks(student, teacher, shape, images, classes, class_counts(data), data.details.task)


def check_classes(teacher: Checkpoint, data: Dataset) -> None:
    """Check that a student of these classes can learn from a teacher.

    Raises:
        ModelError: the teacher has other classes than the data, or several heads.
    """
    if heads := teacher.details.architecture.heads:
        raise ModelError(
            "the teacher has several heads, but distillation needs a teacher with one head",
            found=", ".join(heads),
            hint="distill from a teacher of these classes only",
        )
    if teacher.classes != data.classes:
        raise ModelError(
            "the teacher and the student's data have different classes",
            found=f"{len(teacher.classes)} classes in the teacher: {', '.join(teacher.classes[:5])}…",
            allowed=f"the data's {len(data.classes)}: {', '.join(data.classes[:5])}…",
            hint="distill from a teacher that was trained or fine-tuned on these classes",
        )


class _OtherView:
    """A teacher that sees the second view of each image."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __call__(self, batch: Batch) -> Outputs:
        assert batch.second is not None
        return self._source(replace(batch, images=batch.second))
