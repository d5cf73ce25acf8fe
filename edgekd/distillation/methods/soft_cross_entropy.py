from __future__ import annotations

from torch import Tensor

from edgekd.distillation.methods._logits import Temperature, log_softened


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor | None = None, *, temperature: Temperature = 4.0
) -> Tensor:
    """−T² Σ_c softmax(z_t / T)_c log softmax(z_s / T)_c: `kd` plus the teacher's entropy, the same gradient.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), equation 2.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
    """
    student = log_softened(student_logits, temperature)
    teacher = log_softened(teacher_logits.detach(), temperature).exp()
    return -(temperature**2) * (teacher * student).sum(1).mean()
