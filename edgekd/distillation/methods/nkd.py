from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import (
    Temperature,
    Weight,
    labels,
    log_softened,
    of_label,
    of_others,
    prepared,
)


def nkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    gamma: Weight = 1.5,
    temperature: Temperature = 1.0,
    standardize: bool = False,
) -> Tensor:
    """−p_t[y] log p_s[y] − γ T² Σ_{c≠y} p̂_t[c] log p̂_s[c].

    p = softmax(z) at T = 1; p̂ = softmax(z / T) over all classes but y, so that both sides sum to one there. The first
    term is the labels' cross-entropy times the teacher's probability of the label. Both are cross-entropies: at equal
    logits the value is not 0, though the gradient of the second term is.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized
    Loss and Customized Soft Labels (2023). The paper adds the plain cross-entropy to it, here a term of its own.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's. One class gives 0.
        targets: (B,) class indices.
        gamma: γ, weight of the other classes' part, 0 or more.
        temperature: T of the other classes' part, above 0.
        standardize: compare standardized logits (Sun et al. 2024).

    Returns:
        A scalar: both cross-entropies in nats, mean over the batch.

    Raises:
        ValueError: no targets.
    """
    targets = labels(targets, "nkd")
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    certainty = of_label(log_softened(teacher, 1.0), targets).exp()
    label = certainty * of_label(log_softened(student, 1.0), targets)
    other_teacher, other_student = (log_softened(of_others(z, targets), temperature) for z in (teacher, student))
    others = (other_teacher.exp() * other_student).sum(1)
    return -(label + gamma * temperature**2 * others).mean()


METHOD = Method(function=nkd, needs_labels=True, temperature="temperature", standardize="standardize")
