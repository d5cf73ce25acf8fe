"""What a method changes on the student itself, so that the change ships with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgekd.distillation.taps import Probe
from edgekd.distillation.terms import method_named, parameters_of
from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.edits import reuse_classifier
from edgekd.settings import TermSettings

_INPUT = "@input"


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
        ModelError: one of the two ends in no linear layer.
    """
    for term in grafting(objective):
        if any(edit["edit"] == "reuse_classifier" for edit in architecture.edits):
            continue
        theirs, ours = (
            _last(Probe(network, image_size, whose=whose))
            for network, whose in ((teacher, "teacher"), (student, "student"))
        )
        classifier = teacher.get_submodule(theirs)
        if not isinstance(classifier, nn.Linear):
            raise ModelError(
                f"{term.method} reuses the teacher's classifier, which is no linear layer",
                found=f"{theirs}: {type(classifier).__name__}",
                hint="choose another teacher, or another method",
            )
        edit = {
            "edit": "reuse_classifier",
            "at": ours,
            "features": classifier.in_features,
            **parameters_of(term),
        }
        reuse_classifier.apply(student, edit)
        _copy(classifier, student.get_submodule(f"{ours}.classifier"))
        architecture = architecture.edited(edit)
    return architecture


def _last(probe: Probe) -> str:
    (path,) = probe.choose("embedding")
    return path.removesuffix(_INPUT)


@torch.no_grad()
def _copy(classifier: nn.Linear, into: nn.Module) -> None:
    into.load_state_dict({"bias": torch.zeros(classifier.out_features), **classifier.state_dict()})
    into.requires_grad_(False)
