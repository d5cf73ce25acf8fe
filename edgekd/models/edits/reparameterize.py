"""Folds branches: {"edit": "reparameterize", "modules": [paths], "convolutions": [before, after], "norms": […, …]}.

The folded weights are in the checkpoint; the edit gives the blocks the form that these have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit
from edgekd.models.reparameterization import Folded, replay

NAME = "reparameterize"


def edit_of(folded: Folded) -> dict[str, Any]:
    """The manifest's entry for a folded network."""
    return {
        "edit": NAME,
        "modules": list(folded.modules),
        "convolutions": list(folded.convolutions),
        "norms": list(folded.norms),
    }


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Fold the blocks at `modules`, in place.

    Raises:
        ModelError: the edit is of another network.
    """
    for counts in (edit["convolutions"], edit["norms"]):
        before, after = counts
        if not 0 <= int(after) <= int(before):
            raise ModelError("the counts of folded layers in this checkpoint are not valid", found=list(counts))
    replay(model, [str(path) for path in edit["modules"]])
    return model


EDIT = Edit(apply=apply)
