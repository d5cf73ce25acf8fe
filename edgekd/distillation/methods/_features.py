"""What the losses on features share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.methods._logits import exact

Shape = Sequence[int]


def without_batch(shape: Shape) -> tuple[int, ...]:
    """(C, H, W) of a map or (C,) of a vector, from a shape with or without the batch in front.

    Raises:
        ValueError: neither a map nor a vector.
    """
    if len(shape) not in (1, 2, 3, 4):
        raise ValueError(f"a feature is a map (B, C, H, W) or a vector (B, C), not {tuple(shape)}")
    return tuple(shape[1:]) if len(shape) in (2, 4) else tuple(shape)


def vectors(feature: Tensor) -> Tensor:
    """(B, C, H, W) averaged over its places, or (B, C) as it is; at least single precision."""
    feature = exact(feature)
    return feature.mean((2, 3)) if feature.ndim == 4 else feature


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps of any height and width, each averaged down to the smaller height and the smaller width of both."""
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return _pooled(student, size), _pooled(teacher, size)


def unit(rows: Tensor, dim: int = 1) -> Tensor:
    """Each row divided by its length; a row of zeros stays one, and its gradient stays finite.

    Dividing by the largest value first keeps the squares from overflow and underflow; the length of the result does
    not depend on it, so that no gradient is lost by not following it.
    """
    largest = rows.detach().abs().amax(dim, keepdim=True)
    scaled = rows / torch.where(largest > 0, largest, 1.0)
    squares = scaled.square().sum(dim, keepdim=True)
    return scaled * torch.where(squares > 0, squares, 1.0).rsqrt()


def _pooled(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if tuple(feature.shape[2:]) == size else F.adaptive_avg_pool2d(feature, size)
