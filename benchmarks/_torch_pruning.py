"""A network pruned by torch-pruning as its README does it: one ratio for all layers, their channels by group norm."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import nn

from edgekd.errors import ModelError, summary
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.cost import cost
from edgekd.runs import Run, Stage
from edgekd.runtime.preprocess import InputShape

STAGE = Stage("torch-pruning", "Pruned by torch-pruning", version=1)
_HALVINGS = 8


def pruned_by_torch_pruning(run: Run, student: Checkpoint, kept: float, multiple: int) -> Checkpoint:
    """The widest network that keeps at most `kept` of the MACs, as a stage: to be recovered like edgekd's own.

    Raises:
        ModelError: torch-pruning fails on this network, or cannot reach the target.
    """
    return run.stage(
        STAGE,
        Checkpoint,
        settings={"kept": kept, "multiple": multiple, "torch-pruning": torch_pruning.__version__},
        inputs={"student": student},
        make=lambda out: _checkpoint(student, kept, multiple, out),
    )


def narrowed(network: nn.Module, shape: InputShape, kept: float, multiple: int) -> nn.Module:
    """Args, result and errors as pruned_by_torch_pruning()."""
    most, best = kept * cost(network, shape)["macs"], None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        found = _at_ratio(network, shape, ratio, multiple)
        if cost(found, shape)["macs"] <= most:
            best, high = found, ratio
        else:
            low = ratio
    if best is None:
        raise ModelError(f"torch-pruning does not reach {kept:g} of the MACs")
    return best


def _at_ratio(network: nn.Module, shape: InputShape, ratio: float, multiple: int) -> nn.Module:
    own = copy.deepcopy(network).eval()
    last = [module for module in own.modules() if isinstance(module, nn.Linear)][-1]
    try:
        torch_pruning.MetaPruner(
            own,
            torch.zeros(1, *shape),
            importance=torch_pruning.importance.GroupMagnitudeImportance(),
            pruning_ratio=ratio,
            ignored_layers=[last],
            round_to=multiple,
        ).step()
    # Its graph breaks in many ways: ShuffleNet's shuffle divides by zero.
    except Exception as error:
        raise ModelError(f"torch-pruning fails: {summary(error)}") from error
    return own


def _checkpoint(student: Checkpoint, kept: float, multiple: int, out: Path) -> Checkpoint:
    details = student.details
    shape = details.preprocessing.shape
    before = checkpoints.load(student)
    after = narrowed(before, shape, kept, multiple)
    saved = checkpoints.save(
        after,
        details.architecture.edited({"edit": "prune", "shapes": _changed(before, after)}),
        preprocessing=details.preprocessing,
        classes=student.classes,
        out=out,
        training=details.training,
    )
    example = torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(1, *shape)
    with torch.no_grad():
        assert torch.equal(checkpoints.load(saved).eval()(example), after(example))
    return saved


def _changed(before: nn.Module, after: nn.Module) -> dict[str, Any]:
    shapes = {name: list(tensor.shape) for name, tensor in before.state_dict().items()}
    return {
        name: list(tensor.shape) for name, tensor in after.state_dict().items() if list(tensor.shape) != shapes[name]
    }
