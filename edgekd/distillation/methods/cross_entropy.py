from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import exact, labels, standardized

Smoothing = Annotated[float, Field(ge=0.0, lt=1.0)]


def cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    label_smoothing: Smoothing = 0.0,
    standardize: bool = False,
) -> Tensor:
    """−log softmax(z_s)[y]: the labels' own term, which most objectives keep beside the teacher's.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2, its second
    objective.

    Args:
        student_logits: (B, C), unnormalised.
        teacher_logits: not used.
        targets: (B,) class indices.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, section 7).
        standardize: on the student's standardized logits (Sun et al. 2024 standardize only the teacher's term).

    Returns:
        A scalar: the cross-entropy in nats, mean over the batch.

    Raises:
        ValueError: no targets.

    Example:
        >>> import torch
        >>> round(cross_entropy(torch.tensor([[1.0, 0.0]]), targets=torch.tensor([0])).item(), 4)
        0.3133
    """
    student = standardized(student_logits) if standardize else exact(student_logits)
    return F.cross_entropy(student, labels(targets, "cross_entropy"), label_smoothing=label_smoothing)


METHOD = Method(function=cross_entropy, needs_labels=True, standardize="standardize")
