"""What a training minimises."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.data.loader import Batch


class Objective(Protocol):
    """A module, so that what it trains besides the model is optimised, clipped and saved with it."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms, each a scalar; their sum is minimised."""
        ...


class Supervised(nn.Module):
    """Cross-entropy with the labels."""

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        return {"cross_entropy": F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)}
