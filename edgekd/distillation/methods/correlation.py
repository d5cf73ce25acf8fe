from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, fits, unit, vectors, without_batch

Dimension = Annotated[int, Field(gt=0)]
Width = Annotated[float, Field(ge=1e-6, le=1e6)]


def correlation(student_feature: Tensor, teacher_feature: Tensor, *, gamma: Width = 0.4) -> Tensor:
    """(1 / B²) Σ_ij (K_s,ij − K_t,ij)², where K correlates the samples i and j of a batch.

    K_ij = e^(−2γ) Σ_p (2γ)^p / p! (x_i · x_j)^p for p = 0, 1, 2: the Gaussian kernel of embeddings x of length 1,
    expanded to the second order.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation (2019), the Gaussian kernel. Public code
    correlates each sample with the next one of the batch only, so that its value depends on the batch's order: here all
    pairs count. Its usual weight of 0.02 was tuned for that other value.

    Args:
        student_feature, teacher_feature: embeddings (B, C), or (B, C, H, W), which is averaged over its positions; of
            any C each. No gradient reaches the teacher's. With one sample the loss and its gradient are 0.
        gamma: γ, how fast the kernel falls with distance.

    Returns:
        A scalar: the mean over all B² pairs, 0 or more.
    """
    difference = _kernel(student_feature, gamma) - _kernel(teacher_feature.detach(), gamma)
    return difference.square().mean()


class Correlation(nn.Module):
    """`correlation` of linear embeddings of both features.

    The student's embedding learns. The teacher's is a fixed random projection, which keeps angles nearly as they are:
    one that learns too lowers the loss by making all samples of the teacher alike.

    Args:
        student_shape, teacher_shape: (C, H, W) or (C,), with or without the batch in front.
        dimension: of the embeddings.
        gamma: see correlation().
    """

    teacher_embedding: Tensor

    def __init__(
        self, student_shape: Shape, teacher_shape: Shape, *, dimension: Dimension = 128, gamma: Width = 0.4
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.embedding = nn.Linear(without_batch(student_shape)[0], dimension)
        projection = nn.init.orthogonal_(self.embedding.weight.new_empty(dimension, without_batch(teacher_shape)[0]))
        self.register_buffer("teacher_embedding", projection)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `correlation`; features of the channels that it was built for."""
        student = self.embedding(fits(vectors(student_feature), self.embedding))
        teacher = fits(vectors(teacher_feature.detach()), self.embedding) @ self.teacher_embedding.T
        return correlation(student, teacher, gamma=self.gamma)


def _kernel(feature: Tensor, gamma: float) -> Tensor:
    """(B, B), values up to 1."""
    directions = unit(vectors(feature))
    products = 2.0 * gamma * (directions @ directions.T)
    return math.exp(-2.0 * gamma) * (1.0 + products + products.square() / 2.0)


METHOD = Method(function=correlation, module=Correlation, taps="embedding")
