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
        ModelError: the layer at `at` is not linear.
    """
    at, features = str(edit["at"]), int(edit["features"])
    found = dict(model.named_modules()).get(at)
    if not isinstance(found, nn.Linear):
        raise ModelError(
            f"the teacher's classifier cannot replace {at or 'the last layer'} of this network",
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
    """Layers from the student's feature to a feature of the teacher's width.

    Maps: convolutions 1x1, 3x3, 1x1, of which the first two are followed by batch norm and ReLU; height and width stay
    the student's. Vectors: Linear, batch norm, ReLU, Linear. A student's map is averaged over its positions where the
    teacher has a vector. Public code ends in another batch norm and ReLU; here the last layer is linear, because the
    features of many teachers (SiLU, GELU, hard-swish, layer norm) have negative values, which a ReLU cannot produce.

    Args:
        student, teacher: the features' shapes, (C, H, W) or (C,).
        reduction: the teacher's width divided by the width of the hidden layers.

    Raises:
        ValueError: the teacher's feature is a map and the student's is a vector.
    """
    if len(student) < len(teacher):
        raise ValueError(
            f"simkd cannot project the student's vector {tuple(student)} to the teacher's map {tuple(teacher)}; "
            "choose a student layer whose output is a map"
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


EDIT = Edit(apply=apply)
