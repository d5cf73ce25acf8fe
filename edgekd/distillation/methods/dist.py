from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import Temperature, Weight, centred, log_softened, prepared


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    beta: Weight = 1.0,
    gamma: Weight = 1.0,
    temperature: Temperature = 4.0,
    standardize: bool = False,
) -> Tensor:
    """τ² [β (1 − mean over samples of ρ(row_s, row_t)) + γ (1 − mean over classes of ρ(column_s, column_t))].

    ρ is Pearson's correlation, the rows and columns those of softmax(z / τ): a row relates the classes of one sample
    (inter-class), a column the samples of the batch under one class (intra-class). So the value depends on which
    samples share a batch, not on their order.

    Source: Huang et al., Knowledge Distillation from A Stronger Teacher (2022); usual with a weight of 2, and τ = 1 on
    ImageNet. As in its code 1e-8 is added to ρ's denominator, which quiets columns of tiny probabilities.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
            A batch of one has no column part, one class neither part: 0 with zero gradient. A row or column that
            does not vary has ρ = 0 and no gradient; the paper's code sends gradients of about 1e8 there.
        targets: not used.
        beta, gamma: weights of the rows' and of the columns' part, 0 or more.
        temperature: τ, above 0.
        standardize: compare standardized logits (Sun et al. 2024).

    Returns:
        A scalar: τ² times the weighted parts, each from 0 to 2.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> round(dist(student, teacher, temperature=1.0).item(), 4)
        0.0
        >>> round(dist(-student, teacher, temperature=1.0).item(), 4)
        4.0
    """
    student, teacher = prepared(student_logits, teacher_logits, standardize)
    student, teacher = log_softened(student, temperature).exp(), log_softened(teacher, temperature).exp()
    samples, classes = student.shape
    nothing = 0.0 * student.sum()
    rows = _unlikeness(student, teacher) if classes > 1 else nothing
    columns = _unlikeness(student.T, teacher.T) if classes > 1 and samples > 1 else nothing
    return temperature**2 * (beta * rows + gamma * columns)


def _unlikeness(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − the mean over rows of the correlation of the student's row with the teacher's."""
    student, teacher = centred(student), centred(teacher)
    lengths = torch.linalg.vector_norm(student, dim=1) * torch.linalg.vector_norm(teacher, dim=1)
    unlikeness: Tensor = 1.0 - (student * teacher).sum(1) / (lengths + 1e-8)
    return unlikeness.mean()


METHOD = Method(function=dist, temperature="temperature", standardize="standardize")
