from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import Temperature, divergence, log_softened, prepared


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: Temperature = 4.0,
    standardize: bool = False,
) -> Tensor:
    """T² KL(softmax(z_t / T) ‖ softmax(z_s / T)).

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2; T² keeps the
    gradient's size when T changes (equation 4).

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        temperature: T, above 0.
        standardize: compare standardized logits (Sun et al. 2024); there T = 2 and a weight of 9 are usual.

    Returns:
        A scalar: T² times the divergence in nats, mean over the batch.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]])
        >>> round(kd(student, teacher, temperature=4.0).item(), 4)
        0.8475
        >>> kd(teacher, teacher).item()
        0.0
    """
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    return temperature**2 * divergence(log_softened(teacher, temperature), log_softened(student, temperature)).mean()


METHOD = Method(function=kd, temperature="temperature", standardize="standardize")
