from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import unit
from edgekd.distillation.methods._logits import exact


def similarity(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """‖G_s − G_t‖² / B², where G is F Fᵀ with each row divided by its length and F the features, one row per sample.

    Source: Tung and Mori, Similarity-Preserving Knowledge Distillation (2019), section 3; the usual weight is 3000.
    F Fᵀ is computed in at least single precision: in half precision it overflows.

    Args:
        student_feature, teacher_feature: (B, C, H, W) or (B, C), of any C, H and W each; no gradient reaches the
            teacher's. With one sample there is nothing to compare: 0, with a gradient of 0.

    Returns:
        A scalar: the mean over all B² pairs, 0 or more.
    """
    return (_similarities(student_feature) - _similarities(teacher_feature.detach())).square().sum() / (
        len(student_feature) ** 2
    )


def _similarities(feature: Tensor) -> Tensor:
    """(B, B), each row of length 1."""
    rows = exact(feature).flatten(1)
    return unit(rows @ rows.T)


METHOD = Method(function=similarity, taps="last")
