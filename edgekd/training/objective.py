"""The objective of training on labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.data.loader import Batch


class Supervised(nn.Module):
    """Cross-entropy with the labels; an objective as fit() takes it.

    Args:
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: (C,); the mean over a batch is weighted by those of its labels.
    """

    weights: Tensor | None

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        loss = F.cross_entropy(logits, batch.targets, self.weights, label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss}
