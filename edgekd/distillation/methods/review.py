from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, comparable, fits, maps, same_channels, same_depths, through

Width = Annotated[int, Field(ge=1)]


def review(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Σ over depths of the hierarchical context loss: MSE of whole maps and of their 4x4, 2x2 and 1x1 averages.

    The weights are 1, 1/2, 1/4, 1/8, divided by their sum; a level that is not smaller than the map is left out.

    Source: Chen et al., Distilling Knowledge via Knowledge Review (2021), section 3; the weights are those of its
    public code, which supports square maps only. The usual weight of 5 to 8 was tuned with a warm-up of 20 epochs: set
    the term's `warmup_epochs`.

    Args:
        student_features, teacher_features: maps (B, C, H, W), shallow to deep, the student's already fused (see
            Review); at each depth C is equal, and both are averaged down to the smaller height and width. No gradient
            reaches the teacher's. The paper takes maps before their last ReLU; the taps chosen where a recipe names
            none come after it. Where the network has it as a module, name `…relu@input`.

    Returns:
        A scalar: the sum over depths.

    Raises:
        ValueError: other channels, another number of maps, or a tensor instead of a list.
    """
    same_depths(student_features, teacher_features, "review", least=1)
    pairs = list(zip(student_features, teacher_features, strict=True))
    for s, t in pairs:
        same_channels(s, t, "review")
    return torch.stack([_hierarchical(*comparable(s, t)) for s, t in pairs]).sum()


class Review(nn.Module):
    """`review` of a student whose maps are fused from the deepest to the shallowest: each has seen all deeper ones.

    At each depth: a 1x1 convolution to the inner width, a weighted sum with what came from below (two weights per
    position, by attention on both), the teacher's size, and a 3x3 convolution to the teacher's channels.

    Source: Chen et al. (2021), section 3. In its public code the deepest level is the pooled embedding, as a map of one
    position, beyond the last map; here the taps decide.

    Args:
        student_shapes, teacher_shapes: of the maps, shallow to deep, with or without the batch.
        width: most channels inside; fewer if the student's deepest map has fewer.

    Raises:
        ValueError: another number of maps, or a tap that is not a map.
    """

    def __init__(self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape], *, width: Width = 512) -> None:
        super().__init__()
        same_depths(student_shapes, teacher_shapes, "review", least=1)
        students, teachers = maps(student_shapes, "review"), maps(teacher_shapes, "review")
        inner, deepest = min(width, students[-1][0]), len(students) - 1
        self.fusions = nn.ModuleList(
            _Fusion(s[0], inner, t[0], attend=depth < deepest)
            for depth, (s, t) in enumerate(zip(students, teachers, strict=True))
        )

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """See `review`; the student's channels are those of `student_shapes`, heights and widths are free."""
        fused: list[Tensor] = []
        carried: Tensor | None = None
        stages = list(zip(self.fusions, student_features, teacher_features, strict=True))
        for fuse, student, teacher in reversed(stages):
            made, carried = fuse(fits(student, self), carried, teacher.shape[2:])
            fused.append(made)
        return review(fused[::-1], teacher_features)


class _Fusion(nn.Module):
    def __init__(self, channels: int, inner: int, out: int, *, attend: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner))
        self.leave = nn.Sequential(nn.Conv2d(inner, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        self.attention = nn.Sequential(nn.Conv2d(2 * inner, 2, 1), nn.Sigmoid()) if attend else None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is None:
                nn.init.kaiming_uniform_(layer.weight, a=1)

    def forward(self, feature: Tensor, carried: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, out, *size) to compare, and (B, inner, *size) to carry to the next shallower depth."""
        mixed = through(self.enter, feature)
        if self.attention is not None and carried is not None:
            carried = F.interpolate(carried, mixed.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([mixed, carried], 1))
            mixed = mixed * shares[:, :1] + carried * shares[:, 1:]
        mixed = F.interpolate(mixed, list(size), mode="nearest")
        return through(self.leave, mixed), mixed


def _hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    height, width = student.shape[2:]
    loss, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for level in (4, 2, 1):
        if level >= max(height, width):
            continue
        size = (min(level, height), min(level, width))
        weight /= 2
        weights += weight
        loss = loss + weight * F.mse_loss(F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size))
    return loss / weights


METHOD = Method(function=review, module=Review, taps="stages")
