from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from edgekd.distillation.methods._features import Shape, comparable, fits, same_channels, without_batch
from edgekd.distillation.methods._logits import exact

TAPS = "embedding"
# In a run the projector and the teacher's classifier become part of the student; see edgekd.distillation.graft.
GRAFTS = True

Reduction = Annotated[int, Field(ge=1)]


def simkd(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Mean of (f_s − f_t)² over batch and features: what the projected student is compared by.

    Source: Chen et al., Knowledge Distillation with the Reused Teacher Classifier (2022), section 3.2; averaged
    over features, as in public code.

    Args:
        student_feature, teacher_feature: (B, C) both, or (B, C, H, W) both, each averaged down to the smaller height
            and width; C is equal. No gradient reaches the teacher's.

    Raises:
        ValueError: other channels, or a map beside a vector.
    """
    same_channels(student_feature, teacher_feature, "simkd")
    if student_feature.ndim != teacher_feature.ndim:
        found = f"{tuple(student_feature.shape)} of the student and {tuple(teacher_feature.shape)} of the teacher"
        raise ValueError(f"simkd needs two maps or two vectors, not {found}; use Simkd, which adapts")
    student, teacher = comparable(student_feature, teacher_feature)
    return (student - teacher).square().mean()


class Simkd(nn.Module):
    """`simkd` behind a projector, which ships with the student: the teacher's own classifier is put on top of both.

    Source: Chen et al. (2022), section 3.2; there this is the only loss, and there are no labels. The paper projects
    the last map, before the pooling; so does this class, built from two maps. A run differs: there the pooled embedding
    is projected, right in front of the classifier, so that the change exports and prunes with any network.

    Args:
        student_shape, teacher_shape: of the features, with or without the batch.
        reduction: how many times narrower than the teacher's feature the projector is inside.

    Attributes:
        projector: see the function of that name.

    Raises:
        ValueError: the teacher's feature is a map and the student's is none.
    """

    def __init__(self, student_shape: Shape, teacher_shape: Shape, *, reduction: Reduction = 2) -> None:
        super().__init__()
        self.projector = projector(student_shape, teacher_shape, reduction=reduction)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `simkd`; the student's feature is of `student_shape`, its height and width are free."""
        return simkd(through(self.projector, fits(student_feature, self.projector)), teacher_feature)


def projector(student_shape: Shape, teacher_shape: Shape, *, reduction: Reduction = 2) -> nn.Sequential:
    """Layers from the student's feature to one of the teacher's width.

    Maps: convolutions 1x1, 3x3, 1x1, of which the first two are followed by batch norm and ReLU; height and width stay
    the student's. Vectors: Linear, batch norm, ReLU, Linear. A student's map is averaged over its places where the
    teacher has a vector. Public code ends in another batch norm and ReLU; here the last layer is linear, because the
    features of many teachers (SiLU, GELU, hard-swish, layer norm) go below zero, which a ReLU never reaches.

    Raises:
        ValueError: the teacher's feature is a map and the student's is none.
    """
    student, teacher = without_batch(student_shape), without_batch(teacher_shape)
    if len(student) < len(teacher):
        raise ValueError(
            f"simkd cannot make a map {teacher} of the student's vector {student}; tap a map of the student"
        )
    width = max(1, teacher[0] // reduction)
    if len(teacher) == 3:
        return nn.Sequential(
            nn.Conv2d(student[0], width, kernel_size=1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, teacher[0], kernel_size=1),
        )
    return nn.Sequential(
        *((nn.AdaptiveAvgPool2d(1), nn.Flatten()) if len(student) == 3 else ()),
        nn.Linear(student[0], width, bias=False),
        *(nn.BatchNorm1d(width), nn.ReLU()),
        nn.Linear(width, teacher[0]),
    )


def through(layers: nn.Sequential, feature: Tensor) -> Tensor:
    """`layers(feature)`, by the running statistics where a batch has too little for its own.

    One sample, and one place of its map: its variance is none, and torch refuses to train batch norm on it.
    """
    alone = feature.shape[0] == 1 and (feature[0, 0].numel() == 1 or isinstance(layers[0], nn.AdaptiveAvgPool2d))
    if not (layers.training and alone):
        return exact(layers(feature))
    layers.eval()
    try:
        return exact(layers(feature))
    finally:
        layers.train()
