"""Replays structured pruning: {"edit": "prune", "shapes": {parameter or buffer: its shape}}, of the changed ones.

Which channels remained is in the weights; the edit gives the layers the sizes that these have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Give layers of `model` their narrowed sizes, in place; their new weights are zero.

    Raises:
        ModelError: the edit is of an earlier version, or does not fit this network.
    """
    if "history" in edit:
        raise ModelError(
            "this network was pruned by an earlier version of edgekd",
            found="a history of removed channels",
            allowed="the shapes of the layers",
            hint="prune the student again",
        )
    shapes = {str(name): tuple(int(size) for size in shape) for name, shape in edit["shapes"].items()}
    resize(model, shapes)
    return model


def resize(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Replace parameters and buffers of a network by zeros of other shapes, none of them larger.

    Args:
        model: changed in place.
        shapes: by the name of the parameter or buffer.

    Raises:
        ModelError: there is no such tensor, or it is smaller.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, shape in shapes.items():
        found = tensors.get(name)
        if found is None or not _shrinks(found, shape):
            raise ModelError(
                f"the pruning of this checkpoint does not fit this network at {name}",
                found="nothing of this name" if found is None else f"{tuple(found.shape)}, pruned to {tuple(shape)}",
            )
    for name, shape in shapes.items():
        parent, _, own = name.rpartition(".")
        _replace(model.get_submodule(parent), own, shape)


def _shrinks(tensor: Tensor, shape: Sequence[int]) -> bool:
    return len(shape) == tensor.dim() and all(0 < new <= old for new, old in zip(shape, tensor.shape, strict=True))


def _replace(module: nn.Module, name: str, shape: Sequence[int]) -> None:
    before: Tensor = getattr(module, name)
    after = torch.zeros(*shape, dtype=before.dtype, device=before.device)
    if name in module._parameters:
        setattr(module, name, nn.Parameter(after, requires_grad=before.requires_grad))
    else:
        setattr(module, name, after)
    if name == "weight":
        _describe(module, before, after)


def _describe(module: nn.Module, before: Tensor, after: Tensor) -> None:
    """What a layer says of its own sizes: forward() of some reads it."""
    if isinstance(module, nn.Conv2d):
        # A group remains whole, so the number of outputs tells how many remain.
        groups = module.groups * after.shape[0] // before.shape[0] if module.groups > 1 else 1
        module.groups, module.out_channels, module.in_channels = groups, after.shape[0], after.shape[1] * groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = after.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = after.shape[0]


EDIT = Edit(apply=apply)
