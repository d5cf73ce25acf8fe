from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import prepared


def mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    zero_mean: bool = False,
    standardize: bool = False,
) -> Tensor:
    """‖z_s − z_t‖², summed over classes: the regression of logits.

    Source: Ba and Caruana, Do Deep Nets Really Need to be Deep? (2014), equation 1, without its factor 1/2.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        zero_mean: compare logits with their row's mean taken off, since a softmax does not see it.
        standardize: compare standardized logits (Sun et al. 2024), whose mean is zero already.

    Returns:
        A scalar: the squared distance, summed over classes, mean over the batch.
    """
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    difference = student - teacher
    if zero_mean:
        difference = difference - difference.mean(1, keepdim=True)
    return difference.square().sum(1).mean()


# A class that is not stored has a logit all the same, and its square counts like any other.
METHOD = Method(function=mse, whole_row=True, standardize="standardize", tasks=("single-label", "multilabel"))
