"""The optimiser: fused, and without weight decay on biases and normalisation layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from edgekd.recipe.settings import StepSettings


def make_optimiser(modules: Iterable[nn.Module], settings: StepSettings, rate: float) -> torch.optim.Optimizer:
    """An optimiser for all trainable parameters of `modules`; biases and normalisation layers have no weight decay.

    Args:
        modules: what is trained.
        settings: of the training.
        rate: the learning rate until the schedule sets another.
    """
    parameters = [parameter for parameter in trainable(modules)]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov, fused=True)


def trainable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules:
        yield from (parameter for parameter in module.parameters() if parameter.requires_grad)
