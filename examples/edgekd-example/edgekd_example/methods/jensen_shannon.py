from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from edgekd.distillation.method import Method


def jensen_shannon(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: Annotated[float, Field(gt=0.0)] = 4.0,
    beta: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5,
) -> Tensor:
    """T² (β KL(P ‖ M) + (1 - β) KL(Q ‖ M)) with M = β P + (1 - β) Q, P the teacher's and Q the student's softmax.

    Bounded, unlike KL(P ‖ Q): one image on which the two differ widely cannot dominate a batch. With β near 0 it
    behaves like KL(P ‖ Q), near 1 like KL(Q ‖ P).

    Source: Agarwal et al., On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes (2024),
    section 2, there for sequences and without a temperature.

    Args:
        student_logits, teacher_logits: (B, C), unnormalised; no gradient reaches the teacher's.
        targets: not used.
        temperature: T, which softens both.
        beta: β, the teacher's share of M.

    Returns:
        A scalar: summed over classes, mean over the batch.
    """
    student = log_softmax(student_logits / temperature, dim=1)
    teacher = log_softmax(teacher_logits.detach() / temperature, dim=1)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    rows = beta * _divergence(teacher, mixture) + (1 - beta) * _divergence(student, mixture)
    return temperature**2 * rows.mean()


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(first ‖ second) of log-probabilities (B, C): (B,)."""
    return (first.exp() * (first - second)).sum(dim=1)


METHOD = Method(function=jensen_shannon, temperature="temperature")
