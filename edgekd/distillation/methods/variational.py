from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, comparable, fits, same_channels, vectors, without_batch

_FIRST_VARIANCE = 5.0
_LEAST_VARIANCE = 1e-5


def variational(student_feature: Tensor, teacher_feature: Tensor, *, variance: Tensor | None = None) -> Tensor:
    """mean ½ [(μ(f_s) − f_t)² / σ² + log σ²]: what the student's feature leaves unknown of the teacher's.

    A bound on their mutual information, up to a constant; below 0 where σ² is below 1.

    Source: Ahn et al., Variational Information Distillation for Knowledge Transfer (2019). The mean runs over batch,
    channels and positions, as in public code, for which the usual weight of 1 is meant.

    Args:
        student_feature: μ(f_s), the prediction of the teacher's feature, (B, C, H, W) or (B, C).
        teacher_feature: of the same C. Maps of different sizes are averaged down to the smaller one; a map beside a
            vector is averaged over its positions. No gradient reaches it.
        variance: σ², (C,), above 0; None is 1 everywhere. `Variational` learns it; recipes do not set it.

    Returns:
        A scalar: the mean over batch, channels and positions, in nats; it can be below 0.

    Raises:
        ValueError: different channels.
    """
    same_channels(student_feature, teacher_feature, "variational")
    prediction, teacher = comparable(student_feature, teacher_feature)
    if variance is None:
        variance = prediction.new_ones(prediction.shape[1])
    if tuple(variance.shape) != (prediction.shape[1],):
        found = f"{tuple(variance.shape)} on {prediction.shape[1]}"
        raise ValueError(f"variational needs one variance per channel, not {found}")
    spread = variance.reshape(-1, *[1] * (prediction.ndim - 2))
    return 0.5 * ((prediction - teacher).square() / spread + spread.log()).mean()


class Variational(nn.Module):
    """`variational` with a network μ that predicts the teacher's feature, and a variance σ² for each channel.

    μ is three 1x1 convolutions on maps, a linear layer where either feature is a vector. σ² = softplus(ρ) + 1e-5,
    first 5. ρ is a parameter, so that an optimiser that is given this module's parameters learns it: a public copy
    leaves it out.

    Args:
        student_shape, teacher_shape: (C, H, W) or (C,), with or without the batch in front.
    """

    def __init__(self, student_shape: Shape, teacher_shape: Shape) -> None:
        super().__init__()
        student, teacher = without_batch(student_shape), without_batch(teacher_shape)
        self.maps = len(student) == len(teacher) == 3
        self.mean = _convolutions(student[0], teacher[0]) if self.maps else nn.Linear(student[0], teacher[0])
        self.rho = nn.Parameter(torch.full((teacher[0],), math.log(math.expm1(_FIRST_VARIANCE - _LEAST_VARIANCE))))

    @property
    def variance(self) -> Tensor:
        """σ², (C,)."""
        return F.softplus(self.rho) + _LEAST_VARIANCE

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `variational`; features of the channels that it was built for."""
        student = student_feature if self.maps else vectors(student_feature)
        return variational(self.mean(fits(student, self.mean)), teacher_feature, variance=self.variance)


def _convolutions(student: int, teacher: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1),
    )


# A small variance makes it negative.
METHOD = Method(function=variational, module=Variational, taps="stages", signed=True)
