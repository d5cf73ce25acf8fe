"""Puts int8 quantizers into the network: {"edit": "quantize", "version": 2}, and "learned": true for learned scales.

The scales come with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit
from edgekd.quantization.placement import insert

# Version of the placement rules and of the quantizers' names; a checkpoint records the version it was written with.
VERSION = 2


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """A copy of `model` with folded batch norms and uncalibrated quantizers.

    Raises:
        ModelError: the edit is of another version, or this network cannot be quantized.
    """
    if edit.get("version") != VERSION:
        raise ModelError(
            "the quantizers of this checkpoint were placed by another version",
            found=f"version {edit.get('version')}",
            allowed=f"version {VERSION}",
            hint="load it with the edgekd version that wrote it, or quantize the float checkpoint again",
        )
    return insert(model, learned=edit.get("learned", False)).model


EDIT = Edit(apply=apply)
