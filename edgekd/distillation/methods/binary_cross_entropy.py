from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import exact, labels

Smoothing = Annotated[float, Field(ge=0.0, lt=1.0)]


def binary_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    label_smoothing: Smoothing = 0.0,
) -> Tensor:
    """−Σ_c y_c log σ(z_c) + (1 − y_c) log(1 − σ(z_c)): the labels' own term, for images with any number of the classes.

    Args:
        student_logits: (B, C), unnormalised.
        teacher_logits: not used.
        targets: (B, C), 1 where an image has a class, else 0.
        label_smoothing: α; the targets become (1 − α) y + α / 2.

    Returns:
        A scalar: in nats, summed over classes, mean over the batch.

    Raises:
        ValueError: no targets.

    Example:
        >>> import torch
        >>> round(binary_cross_entropy(torch.zeros(1, 2), targets=torch.tensor([[1, 0]])).item(), 4)
        1.3863
    """
    student = exact(student_logits)
    wanted = labels(targets, "binary_cross_entropy").to(student.dtype)
    smoothed = (1.0 - label_smoothing) * wanted + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(student, smoothed, reduction="none").sum(1).mean()


METHOD = Method(function=binary_cross_entropy, needs_labels=True, tasks=("multilabel",))
