"""Every classifier of timm."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn


def names() -> tuple[str, ...]:
    return tuple(timm.list_models())


def build(name: str, *, num_classes: int, pretrained: bool = False, **arguments: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)
    return model
