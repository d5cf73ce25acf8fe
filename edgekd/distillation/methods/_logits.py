"""What the losses on logits share."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

Temperature = Annotated[float, Field(gt=0.0)]
Mixture = Annotated[float, Field(ge=0.0, le=1.0)]


def exact(logits: Tensor) -> Tensor:
    """At least single precision: exponentials of half-precision logits overflow and lose the small classes."""
    return logits if logits.dtype == torch.float64 else logits.float()


def log_softened(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T) over classes, (B, C)."""
    return F.log_softmax(exact(logits) / temperature, dim=1)


def labels(targets: Tensor | None, method: str) -> Tensor:
    """Raises ValueError where a loss that needs labels is given none."""
    if targets is None:
        raise ValueError(f"{method} needs the labels")
    return targets
