"""Puts a teacher's classifier on a student: {"edit": "reuse_classifier", "at": path, "features": C, "reduction": r}.

The student's last layer becomes `projector`, from its embedding to the teacher's, and `classifier`, as wide as the
teacher's (Chen et al. 2022; see edgekd.distillation.methods.simkd).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit

NAME = "reuse_classifier"


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Replace the layer at `at`, in place.

    Raises:
        ModelError: there is no linear layer.
    """
    at, features = str(edit["at"]), int(edit["features"])
    found = dict(model.named_modules()).get(at)
    if not isinstance(found, nn.Linear):
        raise ModelError(
            f"a teacher's classifier cannot be put at {at or 'the end'} of this network",
            found=type(found).__name__ if found is not None else "nothing",
            allowed="a linear layer",
        )
    head = OrderedDict(
        projector=projector((found.in_features,), (features,), reduction=int(edit["reduction"])),
        classifier=nn.Linear(features, found.out_features),
    )
    model.set_submodule(at, nn.Sequential(head))
    return model


def projector(student: Sequence[int], teacher: Sequence[int], *, reduction: int = 2) -> nn.Sequential:
    """Layers from the student's feature to one of the teacher's width.

    Maps: convolutions 1x1, 3x3, 1x1, of which the first two are followed by batch norm and ReLU; height and width stay
    the student's. Vectors: Linear, batch norm, ReLU, Linear. A student's map is averaged over its places where the
    teacher has a vector. Public code ends in another batch norm and ReLU; here the last layer is linear, because the
    features of many teachers (SiLU, GELU, hard-swish, layer norm) go below zero, which a ReLU never reaches.

    Args:
        student, teacher: the features' shapes, (C, H, W) or (C,).
        reduction: how many times narrower than the teacher's feature it is inside.

    Raises:
        ValueError: the teacher's feature is a map and the student's is none.
    """
    if len(student) < len(teacher):
        raise ValueError(
            f"simkd cannot make a map {tuple(teacher)} of the student's vector {tuple(student)}; "
            "tap a map of the student"
        )
    width = max(1, teacher[0] // reduction)
    if len(teacher) == 3:
        return nn.Sequential(
            nn.Conv2d(student[0], width, kernel_size=1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, teacher[0], kernel_size=1),
        )
    return nn.Sequential(
        *((nn.AdaptiveAvgPool2d(1), nn.Flatten()) if len(student) == 3 else ()),
        nn.Linear(student[0], width, bias=False),
        *(nn.BatchNorm1d(width), nn.ReLU()),
        nn.Linear(width, teacher[0]),
    )


EDIT = Edit(apply)
