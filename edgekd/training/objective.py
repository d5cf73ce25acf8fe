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
        multilabel: an image has any number of the classes: binary cross-entropy, summed over classes.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        multilabel: bool = False,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.multilabel = multilabel
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        if self.multilabel:
            smoothed = (1.0 - self.label_smoothing) * batch.targets.float() + self.label_smoothing / 2
            each = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
            return {"binary_cross_entropy": each.sum(1).mean()}
        loss = F.cross_entropy(logits, batch.targets, self.weights, label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss}
