from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, fits, same_channels, vectors, without_batch
from edgekd.distillation.methods._logits import exact

Penalty = Annotated[float, Field(ge=0.0, le=1e9)]


def taylor(student_feature: Tensor, teacher_feature: Tensor, *, penalty: Penalty = 1e-3) -> Tensor:
    """½ ‖f_k − f*‖² + penalty · ‖f_k‖², summed over features: one stage's regression on the teacher's feature.

    The name: each stage k of the student is read as an approximation of the teacher's last feature f*, through a
    first-order (linear) read-out; a stage's map is averaged over its positions first. The penalty keeps a shallow stage
    from predicting with large features what it cannot know; with it the best f_k is f* / (1 + 2 penalty), not f*.

    It sums over features, so that it is hundreds to thousands at first: weights of 1e-3 to 1e-2 are where to begin.

    Source: no one paper: supervision of every stage (Lee et al., Deeply-Supervised Nets, 2015) by regression on the
    teacher's feature (Romero et al., FitNets, 2015).

    Args:
        student_feature, teacher_feature: (B, C) or (B, C, H, W), C equal. No gradient reaches the teacher's.
        penalty: weight of the student's own squared length.

    Returns:
        A scalar: summed over features, mean over the batch.

    Raises:
        ValueError: other channels.
    """
    same_channels(student_feature, teacher_feature, "taylor")
    student, teacher = vectors(student_feature), vectors(teacher_feature.detach())
    return (0.5 * (student - teacher).square().sum(1) + penalty * student.square().sum(1)).mean()


class Taylor(nn.Module):
    """Σ over the student's stages of `taylor`, each behind one linear layer to the width of the teacher's last tap.

    Source: see `taylor`.

    Args:
        student_shapes, teacher_shapes: shallow to deep, with or without the batch; only the last of the teacher's is
            used, so there may be fewer or more of them than of the student's.
        penalty: see `taylor`; it holds for the projected stages.

    Raises:
        ValueError: no taps.
    """

    def __init__(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape], *, penalty: Penalty = 1e-3
    ) -> None:
        super().__init__()
        if not student_shapes or not teacher_shapes:
            raise ValueError("taylor needs at least one tap of each network")
        width = without_batch(teacher_shapes[-1])[0]
        self.projections = nn.ModuleList(nn.Linear(without_batch(s)[0], width) for s in student_shapes)
        self._penalty = penalty

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """See `taylor`; features (B, C) or (B, C, H, W), shallow to deep."""
        stages = [exact(p(fits(vectors(f), p))) for p, f in zip(self.projections, student_features, strict=True)]
        return torch.stack([taylor(stage, teacher_features[-1], penalty=self._penalty) for stage in stages]).sum()


METHOD = Method(function=taylor, module=Taylor, taps="stages")
