"""The objective of training on labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.data.loader import Batch


class Supervised(nn.Module):
    """Cross-entropy with the labels; an objective as fit() takes it."""

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        return {"cross_entropy": F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)}
