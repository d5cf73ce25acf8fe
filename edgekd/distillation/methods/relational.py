from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from edgekd.distillation.methods._features import vectors
from edgekd.distillation.methods._logits import exact

TAPS = "embedding"

Weight = Annotated[float, Field(ge=0.0)]

# Angles held at once: 8 MiB in double precision, which fits caches. Up to 101 samples a batch is one piece.
_PIECE = 2**20


def relational(
    student_feature: Tensor, teacher_feature: Tensor, *, distance_weight: Weight = 25.0, angle_weight: Weight = 50.0
) -> Tensor:
    """distance_weight · mean_ij h(d_ij / d̄) + angle_weight · mean_ijk h(cos ∠jik), h the smooth L1 distance.

    d_ij is the distance of two samples and d̄ its mean over i ≠ j; ∠jik is the angle at sample i between j and k.

    Source: Park et al., Relational Knowledge Distillation (2019), section 3.2. As in the authors' code the means run
    over all B² pairs and B³ triplets, i = j included, where both networks have 0. There all B³ angles
    are held at once; here they are computed in pieces, and again for the gradient. They come from the distances by the
    law of cosines, in double precision. Samples at the same place have a distance and angles of 0 with a gradient of 0.

    Args:
        student_feature, teacher_feature: (B, C) or (B, C, H, W), which is averaged over its places; of any C each. No
            gradient reaches the teacher's. With one sample the loss and its gradient are 0.
        distance_weight, angle_weight: what the two parts weigh.
    """
    student, teacher = _distances(student_feature), _distances(teacher_feature.detach())
    loss = distance_weight * F.smooth_l1_loss(_by_their_mean(student), _by_their_mean(teacher))
    if angle_weight > 0.0:
        loss = loss + angle_weight * _angle_loss(student, teacher)
    return loss.to(exact(student_feature).dtype)


def _distances(feature: Tensor) -> Tensor:
    """(B, B), in double precision: of nearly equal distances the law of cosines leaves only the last digits."""
    rows = vectors(feature).double()
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def _by_their_mean(distances: Tensor) -> Tensor:
    count = len(distances)
    mean = distances.sum() / max(count * (count - 1), 1)
    return distances / torch.where(mean > 0, mean, 1.0)


def _angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    count = len(student)
    vertices = max(_PIECE // count**2, 1)
    total = student.new_zeros(())
    for start in range(0, count, vertices):
        piece = slice(start, start + vertices)
        total = total + checkpoint(_piece_loss, student, teacher, piece, use_reentrant=False, preserve_rng_state=False)
    return total / count**3


def _piece_loss(student: Tensor, teacher: Tensor, vertices: slice) -> Tensor:
    return F.smooth_l1_loss(_cosines(student, vertices), _cosines(teacher, vertices), reduction="sum")


def _cosines(distances: Tensor, vertices: slice) -> Tensor:
    """(V, B, B): at each vertex i the cosine of the angle between j and k; 0 where j or k lies on i."""
    legs = distances[vertices]
    inverse = torch.where(legs > 0, torch.where(legs > 0, legs, 1.0).reciprocal(), 0.0)
    squares = legs.square()
    opposite = squares[:, :, None] + squares[:, None, :] - distances.square()
    return 0.5 * opposite * inverse[:, :, None] * inverse[:, None, :]
