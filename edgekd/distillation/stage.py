"""The distillation stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from edgekd.artifacts import Checkpoint, Dataset
from edgekd.distillation.objective import Distillation, Teacher
from edgekd.distillation.terms import make_term
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings
from edgekd.training.fit import Progress
from edgekd.training.host import best_device
from edgekd.training.stages import train_with

VERSION = 1


def distill(
    teacher: Checkpoint,
    student: ModelSettings | Checkpoint,
    data: Dataset,
    settings: StepSettings,
    out: Path,
    *,
    objective: Sequence[TermSettings],
    augment: AugmentSettings,
    progress: Progress | None = None,
    begin_epoch: Callable[[nn.Module, int], None] | None = None,
) -> Checkpoint:
    """Train a student on a teacher's answers, or go on training one: after pruning, or through quantizers.

    Args:
        objective: the weighted terms.
        begin_epoch: see fit().
        out: an empty folder, which becomes the student's checkpoint.

    Raises:
        ModelError: the student cannot be built, or the teacher knows other classes.
        TrainingError: see fit().
    """
    if teacher.classes != data.classes:
        raise ModelError(
            "the teacher and the student's data have different classes",
            found=f"{len(teacher.classes)} classes in the teacher: {', '.join(teacher.classes[:5])}…",
            allowed=f"the data's {len(data.classes)}: {', '.join(data.classes[:5])}…",
            hint="distill from a teacher that was trained or fine-tuned on these classes",
        )
    network = checkpoints.load(teacher)
    note = {"teacher": teacher.digest, "objective": [term.model_dump(mode="json") for term in objective]}
    return train_with(
        Distillation(Teacher(network, best_device()), [make_term(term) for term in objective]),
        student,
        data,
        settings,
        out,
        augment=augment,
        progress=progress,
        training=note,
        warnings=_doubts(teacher, objective) if isinstance(student, ModelSettings) else (),
        begin_epoch=begin_epoch,
    )


def _doubts(teacher: Checkpoint, objective: Sequence[TermSettings]) -> list[str]:
    """A smoothed teacher tells less about similar classes (Müller, Kornblith and Hinton 2019, section 4)."""
    smoothing = teacher.manifest.details["training"].get("label_smoothing")
    hot = [term.method for term in objective if make_term(term).parameters.get("temperature", 0.0) > 2.0]
    if not smoothing:
        return []
    advice = f"; lower the temperature of {', '.join(hot)} towards 1" if hot else ""
    return [
        f"The teacher was trained with label smoothing {smoothing}, which hides how similar classes are: "
        f"students learn less from it. Train the teacher without{advice}."
    ]
