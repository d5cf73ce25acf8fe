from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import Temperature, exact


def binary_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: Temperature = 1.0,
) -> Tensor:
    """T² Σ_c KL(Bernoulli(σ(t_c / T)) ‖ Bernoulli(σ(s_c / T))): each class is a binary problem of its own.

    Source: Yang, Xie, Zong, Feng, Niu, Sugiyama and Huang, Multi-Label Knowledge Distillation (2023), its loss on
    logits (MLD), which has no temperature: T = 1. T² keeps the gradient's size when T changes, as in Hinton, Vinyals
    and Dean (2015). Public code clamps probabilities; here they are computed from the logits, which needs no bound.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        temperature: T.

    Returns:
        A scalar: in nats, summed over classes, mean over the batch.

    Example:
        >>> import torch
        >>> round(binary_kd(torch.tensor([[0.0]]), torch.tensor([[100.0]])).item(), 4)
        0.6931
    """
    student, teacher = exact(student_logits) / temperature, exact(teacher_logits.detach()) / temperature
    there, absent = teacher.sigmoid(), (-teacher).sigmoid()
    # A probability of 0 has no part in the sum, whatever its logarithm; both are finite here.
    each = there * (F.logsigmoid(teacher) - F.logsigmoid(student)) + absent * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )
    return temperature**2 * each.sum(1).mean()


METHOD = Method(function=binary_kd, temperature="temperature", tasks=("multilabel",))
