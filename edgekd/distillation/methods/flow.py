from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.methods._features import Shape, same_size, without_batch
from edgekd.distillation.methods._logits import exact

TAPS = "stages"


def flow(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Σ over consecutive depths of the mean of (G_s − G_t)², where G = F1 F2ᵀ / (H W) is how two depths go together.

    Source: Yim et al., A Gift from Knowledge Distillation (2017), equations 1 and 2. There the squares are summed over
    the entries of G; here, as in public code and as the tuned weight of 50 expects, they are averaged. There the
    student is trained on this alone first; here it is one term of the objective. The two maps of a pair are averaged
    down to the smaller height and the smaller width of both, which need not be the other network's.

    Args:
        student_features, teacher_features: maps (B, C, H, W), shallow to deep, two or more; at each depth C is equal in
            both networks, H and W are free. No gradient reaches the teacher's.

    Raises:
        ValueError: other channels, other depths, or fewer than two of them.
    """
    _check_depths(student_features, teacher_features)
    for s, t in zip(student_features, teacher_features, strict=True):
        if s.shape[1] != t.shape[1]:
            raise ValueError(
                f"flow needs equal channels, not {s.shape[1]} of the student and {t.shape[1]} of the teacher; "
                "use Flow, which adapts"
            )
    # A training step may run under autocast, which would take these products in half precision.
    with torch.autocast(student_features[0].device.type, enabled=False):
        students = _flows([exact(feature) for feature in student_features])
        teachers = _flows([exact(feature.detach()) for feature in teacher_features])
        return torch.stack([F.mse_loss(s, t) for s, t in zip(students, teachers, strict=True)]).sum()


class Flow(nn.Module):
    """`flow` behind a 1x1 convolution on the student's maps wherever the teacher has other channels.

    Source: Yim et al. (2017), which has networks of equal channels only; the adapters are an addition.

    Args:
        student_shapes, teacher_shapes: of the maps, shallow to deep, with or without the batch.

    Raises:
        ValueError: other depths, or fewer than two of them.
    """

    def __init__(self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]) -> None:
        super().__init__()
        _check_depths(student_shapes, teacher_shapes)
        students, teachers = ([without_batch(s)[0] for s in shapes] for shapes in (student_shapes, teacher_shapes))
        self.adapters = nn.ModuleList(
            nn.Identity() if s == t else nn.Conv2d(s, t, kernel_size=1, bias=False)
            for s, t in zip(students, teachers, strict=True)
        )

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """See `flow`; the student's channels are those of `student_shapes`."""
        adapted = [adapt(exact(f)) for adapt, f in zip(self.adapters, student_features, strict=True)]
        return flow(adapted, teacher_features)


def _flows(features: Sequence[Tensor]) -> list[Tensor]:
    """(B, C1, C2) for each two neighbours."""
    pairs = (same_size(first, second) for first, second in pairwise(features))
    return [(a.flatten(2) @ b.flatten(2).mT) / a[0, 0].numel() for a, b in pairs]


def _check_depths(students: Sequence[object], teachers: Sequence[object]) -> None:
    if len(students) != len(teachers) or len(students) < 2:
        raise ValueError(
            f"flow needs two or more depths, as many of both, not {len(students)} of the student and "
            f"{len(teachers)} of the teacher"
        )
