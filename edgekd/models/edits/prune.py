"""Replays structured pruning: {"edit": "prune", "history": torch-pruning's own list, "input": [C, H, W]}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch_pruning
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Remove channels of `model` in place, layer by layer, as the history records.

    Raises:
        ModelError: the history has layers or channels that this network does not have.
    """
    example = torch.zeros(1, *(int(size) for size in edit["input"]))
    with torch.enable_grad():  # torch-pruning traces dependencies through autograd
        graph = torch_pruning.DependencyGraph().build_dependency(model.eval(), example)
    history = [(str(layer), bool(outputs), list(channels)) for layer, outputs, channels in edit["history"]]
    layers = dict(model.named_modules())
    for layer, _, channels in history:
        if layer not in layers or (channels and max(channels) >= _widest(layers[layer])):
            raise ModelError(f"the pruning history does not fit this network at {layer}")
        graph.load_pruning_history([(layer, _, channels)])
    return model


def _widest(layer: nn.Module) -> int:
    sizes = [size for weight in layer.parameters(recurse=False) for size in weight.shape[:2]]
    return max(sizes, default=0)


EDIT = Edit(apply=apply)
