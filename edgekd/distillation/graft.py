"""What a method changes on the student itself, so that the change ships with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgekd.distillation.declared import method_named, parameters_of
from edgekd.distillation.taps import Probe
from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.edits import reuse_classifier
from edgekd.recipe.settings import TermSettings


def grafting(objective: Sequence[TermSettings]) -> list[TermSettings]:
    """The terms that do."""
    return [term for term in objective if method_named(term.method).grafts]


def graft(
    student: nn.Module,
    teacher: nn.Module,
    architecture: Architecture,
    objective: Sequence[TermSettings],
    image_size: int,
) -> Architecture:
    """Put the teacher's classifier, frozen, behind a new projector on the student, where the objective has simkd.

    Returns:
        The student's architecture with the edit that builds it again.

    Raises:
        ModelError: one of the two ends in no linear layer, or the student in another teacher's classifier.
    """
    for term in grafting(objective):
        theirs, ours = (
            Probe(network, image_size, whose=whose).classifier
            for network, whose in ((teacher, "teacher"), (student, "student"))
        )
        classifier = teacher.get_submodule(theirs)
        if not isinstance(classifier, nn.Linear):
            raise ModelError(
                f"{term.method} reuses the teacher's classifier, which is no linear layer",
                found=f"{theirs}: {type(classifier).__name__}",
                hint="choose another teacher, or another method",
            )
        if any(edit["edit"] == reuse_classifier.NAME for edit in architecture.edits):
            _again(classifier, student.get_submodule(ours), term)
            continue
        edit = {
            "edit": reuse_classifier.NAME,
            "at": ours,
            "features": classifier.in_features,
            **parameters_of(term),
        }
        reuse_classifier.apply(student, edit)
        _copy(classifier, student.get_submodule(f"{ours}.classifier"))
        architecture = architecture.edited(edit)
    return architecture


def _again(classifier: nn.Linear, found: nn.Module, term: TermSettings) -> None:
    """The student has a teacher's classifier from an earlier training: this teacher's takes its place."""
    if not isinstance(found, nn.Linear) or found.weight.shape != classifier.weight.shape:
        raise ModelError(
            f"{term.method} cannot go on with this student: it ends in the classifier of another teacher",
            found=getattr(found, "in_features", type(found).__name__),
            allowed=f"{classifier.in_features} features, as this teacher has",
            hint="begin from a student without it, or name another loss",
        )
    _copy(classifier, found)


@torch.no_grad()
def _copy(classifier: nn.Linear, into: nn.Module) -> None:
    into.load_state_dict({"bias": torch.zeros(classifier.out_features), **classifier.state_dict()})
    into.requires_grad_(False)
