"""Puts a teacher's classifier on a student: {"edit": "reuse_classifier", "at": path, "features": C, "reduction": r}.

The student's last layer becomes `projector`, from its embedding to the teacher's, and `classifier`, as wide as the
teacher's (Chen et al. 2022; see edgekd.distillation.methods.simkd).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekd.distillation.methods.simkd import projector
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


EDIT = Edit(apply)
