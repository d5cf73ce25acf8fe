from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import unit, vectors

# Opposite samples have a similarity of 0: its logarithm and the gradient of that must stay finite.
_LEAST_SIMILARITY = 1e-7


def pkt(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """(1 / B) Σ_i Σ_j P_ij log(P_ij / Q_ij), P of the teacher, Q of the student: how likely sample i picks sample j.

    P_ij = k_ij / Σ_m k_im with k_ij = (1 + cos(f_i, f_j)) / 2, at least 1e-7; Q likewise.

    Source: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer (2018), with the
    cosine kernel. The sum runs over j, the mean over the batch, i = j included as in the authors' code. That code takes
    the mean over i and j, B times less: its usual weight of 30000 is 30000 / B here (about 470 at a batch of 64).

    Args:
        student_feature, teacher_feature: (B, C) or (B, C, H, W), which is averaged over its positions; of any C each.
            No gradient reaches the teacher's. A sample of zeros has a cosine of 0 with every sample. With one sample
            the loss and its gradient are 0.

    Returns:
        A scalar: the divergence in nats, summed over j, mean over the batch.
    """
    student, teacher = _log_conditionals(student_feature), _log_conditionals(teacher_feature.detach())
    return (teacher.exp() * (teacher - student)).sum(1).mean()


def _log_conditionals(feature: Tensor) -> Tensor:
    """(B, B), rows of logarithms of probabilities."""
    directions = unit(vectors(feature))
    similarities = ((1.0 + directions @ directions.T) / 2.0).clamp_min(_LEAST_SIMILARITY)
    return similarities.log() - torch.log(similarities.sum(1, keepdim=True))


METHOD = Method(function=pkt, taps="embedding")
