"""What the losses on logits share."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

# Above, the differences between softened rows are lost in float32's rounding; below, all rows are one-hot.
Temperature = Annotated[float, Field(ge=1e-3, le=1e4)]
Weight = Annotated[float, Field(ge=0.0, le=1e9)]
Mixture = Annotated[float, Field(ge=0.0, le=1.0)]


def exact(logits: Tensor) -> Tensor:
    """At least single precision: exponentials of half-precision logits overflow and lose the small classes."""
    return logits if logits.dtype == torch.float64 else logits.float()


def centred(rows: Tensor) -> Tensor:
    """Each row of (B, C) minus its mean; a row of equal values gives exact zeros and no gradient."""
    varies = rows.amax(1, keepdim=True) > rows.amin(1, keepdim=True)
    return torch.where(varies, rows - rows.mean(1, keepdim=True), 0.0)


def standardized(logits: Tensor) -> Tensor:
    """(z − mean) / (σ + 1e-7) of each row, σ unbiased: only the order and relative spacing of classes is left.

    A row of equal logits, and so a single class, gives zeros and no gradient.

    Source: Sun et al., Logit Standardization in Knowledge Distillation (2024).

    Args:
        logits: (B, C), unnormalised.
    """
    rows = centred(exact(logits))
    variance = rows.square().sum(1, keepdim=True) / max(rows.shape[1] - 1, 1)
    # The root's slope at 0 is infinite; 1e-15 is nothing beside 1e-7.
    return rows / (variance.clamp_min(1e-30).sqrt() + 1e-7)


def prepared(student_logits: Tensor, teacher_logits: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """Both logits (B, C) in at least single precision, the teacher's without gradient; standardized on request."""
    student, teacher = exact(student_logits), exact(teacher_logits.detach())
    return (standardized(student), standardized(teacher)) if standardize else (student, teacher)


def log_softened(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T) over classes, (B, C)."""
    return F.log_softmax(exact(logits) / temperature, dim=1)


def divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each row, (B,), from log-probabilities (B, C)."""
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)


def labels(targets: Tensor | None, method: str) -> Tensor:
    """The targets. Raises ValueError if there are none; `method` is the loss, for the message."""
    if targets is None:
        raise ValueError(f"{method} needs the labels: pass targets=")
    return targets


def of_label(values: Tensor, targets: Tensor) -> Tensor:
    """The label's entry of each row of (B, C), as (B,)."""
    return values.gather(1, targets[:, None]).squeeze(1)


def of_others(values: Tensor, targets: Tensor) -> Tensor:
    """Each row of (B, C) without its label's entry, as (B, C − 1), in order."""
    columns = torch.arange(values.shape[1] - 1, device=values.device)[None, :]
    return values.gather(1, columns + (columns >= targets[:, None]))
