"""What the losses on features share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """(B, C, H, W) averaged over its positions, or (B, C) as it is; at least single precision."""
    feature = exact(feature)
    return feature.mean((2, 3)) if feature.ndim == 4 else feature


def maps(shapes: Sequence[Shape], method: str) -> list[tuple[int, ...]]:
    """(C, H, W) of each, from shapes with or without the batch in front.

    Raises:
        ValueError: one is not a map.
    """
    found = [without_batch(shape) for shape in shapes]
    for shape in found:
        if len(shape) != 3:
            raise ValueError(f"{method} needs maps (C, H, W), not {shape}")
    return found


def fits(feature: Tensor, layer: nn.Module) -> Tensor:
    """A feature in the precision of the layer's weights, or in at least single precision if the layer has none."""
    weight = next(layer.parameters(), None)
    return exact(feature) if weight is None else feature.to(weight.dtype)


def comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps of the same height and width, or both vectors, (B, C) each; the teacher's without gradient.

    A map beside a vector is averaged over its positions. Both come in the wider precision of the two, at least single.
    """
    student, teacher = exact(student), exact(teacher.detach())
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student, teacher = student.to(dtype), teacher.to(dtype)
    if student.ndim == teacher.ndim == 4:
        return same_size(student, teacher)
    return vectors(student), vectors(teacher)


def same_channels(student: Tensor, teacher: Tensor, method: str) -> None:
    """Raises ValueError if the channels of two features (B, C, …) differ; it names the class with an adapter."""
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"{method} needs equal channels, not {student.shape[1]} of the student and {teacher.shape[1]} of the "
            f"teacher; use {method.title()}, which adapts"
        )


def same_depths(students: Sequence[object], teachers: Sequence[object], method: str, *, least: int) -> None:
    """Raises ValueError if these are not two lists of equal length, of at least `least` maps."""
    if isinstance(students, Tensor) or isinstance(teachers, Tensor):
        raise ValueError(f"{method} takes a list of maps of each network, shallow to deep, not one tensor")
    if len(students) != len(teachers) or len(students) < least:
        raise ValueError(
            f"{method} needs {least} or more maps, as many of both networks, not {len(students)} of the student and "
            f"{len(teachers)} of the teacher"
        )


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps of any height and width, each averaged down to the smaller height and the smaller width of both."""
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return _pooled(student, size), _pooled(teacher, size)


def through(layers: nn.Sequential, feature: Tensor) -> Tensor:
    """`layers(feature)`, with batch norms in eval mode if the batch is too small for statistics.

    One sample with one position has no variance, and torch refuses to train batch norm on it.
    """
    alone = feature.shape[0] == 1 and (feature[0, 0].numel() == 1 or isinstance(layers[0], nn.AdaptiveAvgPool2d))
    if not (layers.training and alone):
        return exact(layers(feature))
    layers.eval()
    try:
        return exact(layers(feature))
    finally:
        layers.train()


def unit(rows: Tensor, dim: int = 1) -> Tensor:
    """Each row along `dim` divided by its length; a row of zeros stays zeros, with a finite gradient.

    Dividing by the largest value first keeps the squares from overflow and underflow; the length of the result does
    not depend on it, so that no gradient is lost by not following it.
    """
    largest = rows.detach().abs().amax(dim, keepdim=True)
    scaled = rows / torch.where(largest > 0, largest, 1.0)
    squares = scaled.square().sum(dim, keepdim=True)
    return scaled * torch.where(squares > 0, squares, 1.0).rsqrt()


def _pooled(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if tuple(feature.shape[2:]) == size else F.adaptive_avg_pool2d(feature, size)
