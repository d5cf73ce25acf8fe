"""Puts int8 quantizers into the network: {"edit": "quantize", "version": 2}, and "learned": true for learned scales.

The scales come with the weights. A calibrated network's entry also has `calibration`: see
edgekd.quantization.calibration_set.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        ModelError: the edit is of another version, this network cannot be quantized, or it has another graph than the
            one that was calibrated.
    """
    if edit.get("version") != VERSION:
        raise ModelError(
            "the quantizers of this checkpoint were placed by another version",
            found=f"version {edit.get('version')}",
            allowed=f"version {VERSION}",
            hint="load it with the edgekd version that wrote it, or quantize the float checkpoint again",
        )
    quantized = insert(model, learned=edit.get("learned", False)).model
    if "calibration" in edit:
        CalibrationSet.model_validate(edit["calibration"]).require_graph(quantized)
    return quantized


def calibration_of(architecture: Architecture) -> CalibrationSet | None:
    """What a network was calibrated on; None for one that was not."""
    records = [edit["calibration"] for edit in architecture.edits if "calibration" in edit]
    return CalibrationSet.model_validate(records[-1]) if records else None


EDIT = Edit(apply=apply)
