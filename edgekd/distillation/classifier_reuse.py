"""The teacher's classifier on the student, if the objective has simkd, so that it ships with the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgekd.distillation.method import method_named
from edgekd.distillation.objective_settings import changing_student
from edgekd.distillation.probe import Probe
from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.edits import reuse_classifier
from edgekd.recipe.settings import TermSettings
from edgekd.runtime.preprocess import InputShape


def reuse_teacher_classifier(
    student: nn.Module,
    teacher: nn.Module,
    architecture: Architecture,
    objective: Sequence[TermSettings],
    shape: InputShape,
) -> Architecture:
    """Put the teacher's classifier, frozen, behind a new projector on the student, if the objective has simkd.

    Args:
        student: changed in place.
        teacher: its last layer is copied.
        architecture: the student's.
        objective: the terms of the training.
        shape: of the input.

    Returns:
        The student's architecture with the edit that builds it again.

    Raises:
        ModelError: one of the two does not end in a linear layer, or the student in another teacher's classifier.
    """
    for term in changing_student(objective):
        teacher_path, student_path = (
            Probe(network, shape, whose=whose).classifier
            for network, whose in ((teacher, "teacher"), (student, "student"))
        )
        classifier = teacher.get_submodule(teacher_path)
        if not isinstance(classifier, nn.Linear):
            raise ModelError(
                f"{term.method} reuses the teacher's classifier, which is not a linear layer",
                found=f"{teacher_path}: {type(classifier).__name__}",
                hint="choose another teacher, or another method",
            )
        if any(edit["edit"] == reuse_classifier.NAME for edit in architecture.edits):
            _replace(classifier, student.get_submodule(student_path), term)
            continue
        edit = {
            "edit": reuse_classifier.NAME,
            "at": student_path,
            "features": classifier.in_features,
            **method_named(term.method).parameters_of(term),
        }
        reuse_classifier.apply(student, edit)
        _copy(classifier, student.get_submodule(f"{student_path}.classifier"))
        architecture = architecture.edited(edit)
    return architecture


def _replace(classifier: nn.Linear, found: nn.Module, term: TermSettings) -> None:
    """The student has a teacher's classifier from an earlier training: this teacher's takes its place."""
    if not isinstance(found, nn.Linear) or found.weight.shape != classifier.weight.shape:
        raise ModelError(
            f"{term.method} cannot train this student further: it ends in the classifier of another teacher",
            found=getattr(found, "in_features", type(found).__name__),
            allowed=f"{classifier.in_features} features, as this teacher has",
            hint="begin from a student without it, or name another loss",
        )
    _copy(classifier, found)


@torch.no_grad()
def _copy(classifier: nn.Linear, into: nn.Module) -> None:
    into.load_state_dict({"bias": torch.zeros(classifier.out_features), **classifier.state_dict()})
    into.requires_grad_(False)
