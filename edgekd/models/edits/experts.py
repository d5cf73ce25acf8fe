"""Several networks as one: {"edit": "experts", "experts": [architectures], "order": [columns]}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.edits import Edit


class Experts(nn.Module):
    """Networks for different classes, as one network for all of them.

    Args:
        experts: each from (B, C, H, W) to the logits of its classes.
        order: for every class, its column in the concatenated logits.
    """

    def __init__(self, experts: Sequence[nn.Module], order: Sequence[int]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self._order = list(order)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K) logits."""
        logits = torch.cat([expert(x) for expert in self.experts], 1)
        # An identity permutation would be an operation in every exported graph.
        return logits if self._order == sorted(self._order) else logits[:, self._order]


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """The experts instead of `model`, which only has the number of all their classes.

    Raises:
        ModelError: the edit is damaged, or an expert cannot be built.
    """
    try:
        architectures = _architectures(edit)
        order = [int(column) for column in edit["order"]]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ModelError("the experts of this checkpoint are not valid", found=repr(error)) from None
    if sorted(order) != list(range(sum(each.num_classes for each in architectures))):
        raise ModelError("the experts of this checkpoint do not have each class once", found=f"order {order}")
    return Experts([build(architecture) for architecture in architectures], order)


def _architectures(edit: Mapping[str, Any]) -> list[Architecture]:
    return [Architecture.model_validate(each) for each in edit["experts"]]


EDIT = Edit(apply=apply, architectures=_architectures)
