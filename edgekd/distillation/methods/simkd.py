from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, comparable, fits, same_channels, through, without_batch
from edgekd.models.edits.reuse_classifier import projector

Reduction = Annotated[int, Field(ge=1)]


def simkd(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Mean of (f_s − f_t)² over batch and features: what the projected student is compared by.

    Source: Chen et al., Knowledge Distillation with the Reused Teacher Classifier (2022), section 3.2; averaged
    over features, as in public code.

    Args:
        student_feature, teacher_feature: (B, C) both, or (B, C, H, W) both, each averaged down to the smaller height
            and width; C is equal. No gradient reaches the teacher's.

    Returns:
        A scalar: the mean over batch and features.

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
        projector: see edgekd.models.edits.reuse_classifier.projector.

    Raises:
        ValueError: the teacher's feature is a map and the student's is none.
    """

    def __init__(self, student_shape: Shape, teacher_shape: Shape, *, reduction: Reduction = 2) -> None:
        super().__init__()
        self.projector = projector(without_batch(student_shape), without_batch(teacher_shape), reduction=reduction)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `simkd`; the student's feature is of `student_shape`, its height and width are free."""
        return simkd(through(self.projector, fits(student_feature, self.projector)), teacher_feature)


# In a run the projector and the teacher's classifier become part of the student: edgekd.distillation.classifier_reuse.
METHOD = Method(function=simkd, module=Simkd, taps="embedding", changes_student=True)
