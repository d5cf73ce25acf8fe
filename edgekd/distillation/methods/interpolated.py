from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import Mixture, Temperature
from edgekd.distillation.methods.mse import mse
from edgekd.distillation.methods.soft_cross_entropy import soft_cross_entropy


def interpolated(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    alpha: Mixture = 0.5,
    temperature: Temperature = 4.0,
    standardize: bool = False,
) -> Tensor:
    """(1 − α) · mse + α · soft_cross_entropy.

    Source: Tang et al., Distilling Task-Specific Knowledge from BERT into Simple Neural Networks (2019), section 3.2.
    There the part that α weighs is the cross-entropy with the hard labels; here the soft cross-entropy replaces
    it, and labels are a term of their own. There α = 0, only the regression, was best on text.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        alpha: α, from 0 to 1, the share of the soft cross-entropy.
        temperature: T of the soft cross-entropy, above 0.
        standardize: compare standardized logits (Sun et al. 2024) in both parts.

    Returns:
        A scalar: the weighted sum of both parts, mean over the batch.
    """
    regression = mse(student_logits, teacher_logits, standardize=standardize)
    soft = soft_cross_entropy(student_logits, teacher_logits, temperature=temperature, standardize=standardize)
    return (1.0 - alpha) * regression + alpha * soft


# As in mse, which is a part of it.
METHOD = Method(function=interpolated, whole_row=True, temperature="temperature", standardize="standardize")
