from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import (
    Temperature,
    Weight,
    divergence,
    labels,
    log_softened,
    of_label,
    of_others,
    prepared,
)


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    alpha: Weight = 1.0,
    beta: Weight = 8.0,
    temperature: Temperature = 4.0,
    standardize: bool = False,
) -> Tensor:
    """T² (α TCKD + β NCKD): the confidence in the label, and how the other classes compare, weighted apart.

    TCKD = KL((p_t[y], 1 − p_t[y]) ‖ (p_s[y], 1 − p_s[y])) and NCKD = KL(p̂_t ‖ p̂_s), with p = softmax(z / T) and p̂ the
    softmax over all classes but y. `kd` is α = 1, β = 1 − p_t[y]: it suppresses NCKD where the teacher is certain.

    Source: Zhao et al., Decoupled Knowledge Distillation (2022). Its code hides the label by subtracting 1000 from its
    logit, and takes the logarithm of probabilities that underflow to 0 (NaN on extreme logits); here the label's
    column is left out and everything is computed in logarithms. Its warm-up is the term's `warmup_epochs`. β is 8 on
    CIFAR-100, 6 from VGG13 to MobileNetV2, and 0.5 to 2 with T = 1 on ImageNet.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's. One class gives 0.
        targets: (B,) class indices.
        alpha, beta: weights of TCKD and NCKD, 0 or more.
        temperature: T, above 0.
        standardize: compare standardized logits (Sun et al. 2024).

    Returns:
        A scalar: T² times the weighted divergences in nats, mean over the batch.

    Raises:
        ValueError: no targets.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]])
        >>> round(dkd(student, teacher, torch.tensor([0]), alpha=1.0, beta=8.0, temperature=4.0).item(), 3)
        1.792
    """
    targets = labels(targets, "dkd")
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    if student.shape[1] < 2:
        return 0.0 * student.sum()
    target = divergence(_log_binary(teacher / temperature, targets), _log_binary(student / temperature, targets))
    other_teacher, other_student = (log_softened(of_others(z, targets), temperature) for z in (teacher, student))
    return temperature**2 * (alpha * target + beta * divergence(other_teacher, other_student)).mean()


def _log_binary(logits: Tensor, targets: Tensor) -> Tensor:
    """(log p[y], log(1 − p[y])), (B, 2)."""
    margin = of_label(logits, targets) - of_others(logits, targets).logsumexp(1)
    return torch.stack((F.logsigmoid(margin), F.logsigmoid(-margin)), dim=1)


METHOD = Method(function=dkd, needs_labels=True, temperature="temperature", standardize="standardize")
