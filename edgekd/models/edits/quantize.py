"""Puts int8 quantizers into the network: {"edit": "quantize", "version": 2}.

The scales come with the weights. An entry may also have `learned`: whether scales are learned; `float`: the paths of
the operations that stay in float; and, of a calibrated network, `calibration`: see edgekd.quantization.calibration_set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.edits import Edit
from edgekd.quantization.calibration_set import CalibrationSet
from edgekd.quantization.placement import insert

# Version of the placement rules and of the quantizers' names; a checkpoint records the version it was written with.
VERSION = 2


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """A copy of `model` with folded batch norms and uncalibrated quantizers.

    Raises:
        ModelError: the edit is of another version, this network cannot be quantized, it has another graph than the one
            that was calibrated, or it lacks an operation that is to stay in float.
    """
    if edit.get("version") != VERSION:
        raise ModelError(
            "the quantizers of this checkpoint were placed by another version",
            found=f"version {edit.get('version')}",
            allowed=f"version {VERSION}",
            hint="load it with the edgekd version that wrote it, or quantize the float checkpoint again",
        )
    keep = [str(path) for path in edit.get("float", ())]
    quantized = insert(model, keep, learned=edit.get("learned", False)).model
    if "calibration" in edit:
        CalibrationSet.model_validate(edit["calibration"]).require_graph(quantized)
    return quantized


def edit_of(
    keep: Sequence[str] = (), *, learned: bool = False, calibration: CalibrationSet | None = None
) -> dict[str, Any]:
    """The entry of a manifest. Args as insert(), and what the network was calibrated on."""
    return {
        "edit": "quantize",
        "version": VERSION,
        **({"learned": True} if learned else {}),
        **({"float": list(keep)} if keep else {}),
        **({"calibration": calibration.model_dump(mode="json")} if calibration is not None else {}),
    }


def calibration_of(architecture: Architecture) -> CalibrationSet | None:
    """What a network was calibrated on; None for one that was not."""
    records = [edit["calibration"] for edit in architecture.edits if "calibration" in edit]
    return CalibrationSet.model_validate(records[-1]) if records else None


EDIT = Edit(apply=apply)
