from __future__ import annotations

from torch import Tensor

from edgekd.distillation.methods._logits import Temperature, log_softened


def kd(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor | None = None, *, temperature: Temperature = 4.0
) -> Tensor:
    """T² KL(softmax(z_t / T) ‖ softmax(z_s / T)).

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2; T² keeps the
    gradient's size when T changes (equation 4).

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
    """
    student = log_softened(student_logits, temperature)
    teacher = log_softened(teacher_logits.detach(), temperature)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(1).mean()
