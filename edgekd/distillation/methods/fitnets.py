from __future__ import annotations

from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, comparable, fits, same_channels, vectors, without_batch


def fitnets(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """mean (r(f_s) − f_t)²: the regression of a hint, given the student's feature as it comes out of the regressor.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets (2015), equation 3. There half the squared length; here
    the mean over batch, channels and positions, as in public code, for which the usual weight of 100 is meant.

    Args:
        student_feature, teacher_feature: (B, C, H, W) or (B, C), the same C. Maps of different sizes are averaged down
            to the smaller one; a map beside a vector is averaged over its positions. No gradient reaches the teacher's.

    Returns:
        A scalar: the mean over batch, channels and positions.

    Raises:
        ValueError: different channels.
    """
    same_channels(student_feature, teacher_feature, "fitnets")
    student, teacher = comparable(student_feature, teacher_feature)
    return (student - teacher).square().mean()


class Fitnets(nn.Module):
    """`fitnets` behind a regressor from the student's channels to the teacher's: a 1x1 convolution on maps, a linear
    layer where either feature is a vector. It keeps positions as they are, so that it also works at other image sizes.

    Source: Romero et al. (2015), section 2.1.

    Args:
        student_shape, teacher_shape: (C, H, W) or (C,), with or without the batch in front.
    """

    def __init__(self, student_shape: Shape, teacher_shape: Shape) -> None:
        super().__init__()
        student, teacher = without_batch(student_shape), without_batch(teacher_shape)
        self.maps = len(student) == len(teacher) == 3
        self.regressor = nn.Conv2d(student[0], teacher[0], 1) if self.maps else nn.Linear(student[0], teacher[0])

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """See `fitnets`; features of the channels that it was built for."""
        student = student_feature if self.maps else vectors(student_feature)
        return fitnets(self.regressor(fits(student, self.regressor)), teacher_feature)


METHOD = Method(function=fitnets, module=Fitnets, taps="middle")
