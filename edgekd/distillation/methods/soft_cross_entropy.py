from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import Temperature, log_softened, prepared


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: Temperature = 4.0,
    standardize: bool = False,
) -> Tensor:
    """−T² Σ_c softmax(z_t / T)_c log softmax(z_s / T)_c: `kd` plus the teacher's entropy, the same gradient.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), equation 2.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        temperature: T, above 0.
        standardize: compare standardized logits (Sun et al. 2024).

    Returns:
        A scalar: T² times the cross-entropy in nats, mean over the batch.
    """
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    soft = log_softened(teacher, temperature).exp()
    return -(temperature**2) * (soft * log_softened(student, temperature)).sum(1).mean()


METHOD = Method(function=soft_cross_entropy, temperature="temperature", standardize="standardize")
