from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import divergence, log_softened, prepared

Power = Annotated[float, Field(gt=0.0, le=1.0)]


def wttm(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    gamma: Power = 0.1,
    standardize: bool = False,
) -> Tensor:
    """U KL(p_t^γ / U ‖ softmax(z_s)), U = Σ_c p_t[c]^γ, p_t = softmax(z_t).

    γ = 1 / T softens the teacher only, which keeps the student from copying its flatness; U, from 1 to C^(1−γ), weighs
    a sample by how smooth the softened teacher is. There is no T². γ = 1 is `kd` at T = 1.

    Source: Zheng and Yang, Knowledge Distillation Based on Transformed Teacher Matching (2024); γ from 0.1 to 0.2.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        gamma: γ, above 0, up to 1.
        standardize: compare standardized logits (Sun et al. 2024).

    Returns:
        A scalar: the weighted divergence in nats, mean over the batch.
    """
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    powers = gamma * log_softened(teacher, 1.0)
    log_weight = powers.logsumexp(1, keepdim=True)
    divergences = divergence(powers - log_weight, log_softened(student, 1.0))
    return (log_weight.exp().squeeze(1) * divergences).mean()


# U is mostly the tail: a small power lifts the many improbable classes.
METHOD = Method(function=wttm, whole_row=True, standardize="standardize")
