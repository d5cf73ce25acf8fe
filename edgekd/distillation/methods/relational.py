from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import unit, vectors

Weight = Annotated[float, Field(ge=0.0, le=1e9)]
# (B, B) distances or (B, C) rows, and some of the samples as vertices.
Cosines = Callable[[Tensor, slice], Tensor]

# Numbers held at once: 8 MiB in double precision, which fits caches. Up to 101 samples per batch need one piece only.
_PIECE = 2**20


def relational(
    student_feature: Tensor, teacher_feature: Tensor, *, distance_weight: Weight = 25.0, angle_weight: Weight = 50.0
) -> Tensor:
    """distance_weight · mean_ij h(d_ij / d̄) + angle_weight · mean_ijk h(cos ∠jik), h the smooth L1 distance.

    d_ij is the distance of two samples and d̄ its mean over i ≠ j; ∠jik is the angle at sample i between j and k.

    Source: Park et al., Relational Knowledge Distillation (2019), section 3.2. As in the authors' code the means run
    over all B² pairs and B³ triplets, i = j included, where both networks have 0. There all B³ angles
    are held at once; here they are computed in pieces, and again for the gradient. Samples with equal features have a
    distance and angles of 0 with a gradient of 0.

    Args:
        student_feature, teacher_feature: (B, C) or (B, C, H, W), which is averaged over its positions; of any C each.
            No gradient reaches the teacher's. With one sample the loss and its gradient are 0.
        distance_weight, angle_weight: weights of the two parts.

    Returns:
        A scalar: the weighted sum of both means.
    """
    student, teacher = vectors(student_feature), vectors(teacher_feature.detach())
    # Many GPUs are 32 to 64 times slower in double precision; a CPU is quicker with it, as it then needs no products.
    double = not student.is_cuda or torch.float64 in (student.dtype, teacher.dtype)
    precision = torch.float64 if double else torch.float32
    loss = _relations(student.to(precision), teacher.to(precision), distance_weight, angle_weight)
    return loss.to(student.dtype)


def _relations(student: Tensor, teacher: Tensor, distance_weight: float, angle_weight: float) -> Tensor:
    """On (B, C) of one precision, which decides where the angles come from."""
    distances = _distances(student), _distances(teacher)
    loss = distance_weight * F.smooth_l1_loss(_by_their_mean(distances[0]), _by_their_mean(distances[1]))
    if angle_weight > 0.0 and student.dtype == torch.float64:
        loss = loss + angle_weight * _mean_over_angles(_cosines_of_distances, *distances)
    elif angle_weight > 0.0:
        loss = loss + angle_weight * _mean_over_angles(_cosines_of_rows, student, teacher)
    return loss


def _distances(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def _by_their_mean(distances: Tensor) -> Tensor:
    count = len(distances)
    mean = distances.sum() / max(count * (count - 1), 1)
    return distances / torch.where(mean > 0, mean, 1.0)


def _mean_over_angles(cosines: Cosines, student: Tensor, teacher: Tensor) -> Tensor:
    """In pieces of a few vertices each, over (B, B) distances or (B, C) rows."""
    count = len(student)
    vertices = max(_PIECE // (count * max(count, student.shape[1], teacher.shape[1])), 1)

    def piece(student: Tensor, teacher: Tensor, start: int) -> Tensor:
        at = slice(start, start + vertices)
        return F.smooth_l1_loss(cosines(student, at), cosines(teacher, at), reduction="sum")

    total = student.new_zeros(())
    for start in range(0, count, vertices):
        total = total + checkpoint(piece, student, teacher, start, use_reentrant=False, preserve_rng_state=False)
    return total / count**3


def _cosines_of_distances(distances: Tensor, vertices: slice) -> Tensor:
    """(V, B, B): at each vertex i the cosine of the angle between j and k; 0 where j or k lies on i.

    By the law of cosines, in double precision, since the difference of nearly equal distances loses digits.
    """
    legs = distances[vertices]
    inverse = torch.where(legs > 0, torch.where(legs > 0, legs, 1.0).reciprocal(), 0.0)
    squares = legs.square()
    opposite = squares[:, :, None] + squares[:, None, :] - distances.square()
    return 0.5 * opposite * inverse[:, :, None] * inverse[:, None, :]


def _cosines_of_rows(rows: Tensor, vertices: slice) -> Tensor:
    """The same by products of directions, which loses nothing in single precision."""
    legs = unit(rows[None, :, :] - rows[vertices, None, :], dim=2)
    return legs @ legs.mT


METHOD = Method(function=relational, taps="embedding")
