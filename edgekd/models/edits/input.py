"""Takes inputs that were made for another network: {"edit": "input", "given": input, "own": input}.

An input is {"image_size": [H, W], "mean": [C], "std": [C]}; the number of means is that of its channels. Teacher and
student see the same batch, which is made for the student; before the teacher it is converted to the teacher's own
channels, size and normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekd.errors import ModelError
from edgekd.models.conversion import Conversion
from edgekd.models.edits import Edit


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Convert the inputs of `model` before its forward(), in place.

    Raises:
        ModelError: the edit is damaged.
    """
    try:
        conversion = Conversion(edit["given"], edit["own"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("the input of this checkpoint is not valid", found=repr(error)) from None
    # Before the hooks of earlier edits, which convert to the input that these were trained with.
    model.register_forward_pre_hook(conversion, prepend=True)
    return model


EDIT = Edit(apply=apply)
