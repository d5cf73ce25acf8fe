from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, fits, maps, same_channels, same_depths, same_size
from edgekd.distillation.methods._logits import exact


def flow(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Σ over consecutive depths of the mean of (G_s − G_t)², where G = F1 F2ᵀ / (H W) is how two depths go together.

    Source: Yim et al., A Gift from Knowledge Distillation (2017), equations 1 and 2. There the squares are summed over
    the entries of G; here, as in public code, they are averaged. There the student is first trained on only this;
    here it is one term of the objective, and no weight is known to be tuned for that: public code runs it unweighted in
    that first stage, and the 50 that goes with it multiplies another term. The two maps of a pair are averaged down to
    the smaller height and the smaller width of both, which need not be the other network's.

    Args:
        student_features, teacher_features: maps (B, C, H, W), shallow to deep, two or more; at each depth C is equal in
            both networks, H and W are free. No gradient reaches the teacher's.

    Returns:
        A scalar: the sum over consecutive depths of means over batch and entries.

    Raises:
        ValueError: other channels, other depths, fewer than two of them, or a tensor instead of a list.
    """
    same_depths(student_features, teacher_features, "flow", least=2)
    for s, t in zip(student_features, teacher_features, strict=True):
        same_channels(s, t, "flow")
    # A training step may run under autocast, which would take these products in half precision.
    with torch.autocast(student_features[0].device.type, enabled=False):
        students = _flows([exact(feature) for feature in student_features])
        teachers = _flows([exact(feature.detach()) for feature in teacher_features])
        return torch.stack([(s - t).square().mean() for s, t in zip(students, teachers, strict=True)]).sum()


class Flow(nn.Module):
    """`flow` behind a 1x1 convolution on the student's maps wherever the teacher has other channels.

    Source: Yim et al. (2017), which has networks of equal channels only; the adapters are an addition.

    Args:
        student_shapes, teacher_shapes: of the maps, shallow to deep, with or without the batch.

    Raises:
        ValueError: other depths, fewer than two of them, or a tap that is not a map.
    """

    def __init__(self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]) -> None:
        super().__init__()
        same_depths(student_shapes, teacher_shapes, "flow", least=2)
        self.adapters = nn.ModuleList(
            nn.Identity() if s[0] == t[0] else nn.Conv2d(s[0], t[0], kernel_size=1, bias=False)
            for s, t in zip(maps(student_shapes, "flow"), maps(teacher_shapes, "flow"), strict=True)
        )

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """See `flow`; the student's channels are those of `student_shapes`."""
        adapted = [adapt(fits(f, self)) for adapt, f in zip(self.adapters, student_features, strict=True)]
        return flow(adapted, teacher_features)


def _flows(features: Sequence[Tensor]) -> list[Tensor]:
    """(B, C1, C2) for each two neighbours."""
    pairs = (same_size(first, second) for first, second in pairwise(features))
    return [(a.flatten(2) @ b.flatten(2).mT) / a[0, 0].numel() for a, b in pairs]


METHOD = Method(function=flow, module=Flow, taps="stages")
