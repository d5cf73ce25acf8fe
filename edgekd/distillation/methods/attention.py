from __future__ import annotations

from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import same_size, unit
from edgekd.distillation.methods._logits import exact


def attention(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """mean (q(f_s) − q(f_t))², where q is the map of mean_c f_c² over positions, divided by its length.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention (2017), section 3.1, equation 2 with p = 2. The
    mean runs over batch and positions, as in the authors' code, for which the usual weight of 1000 is meant; one pair
    of taps, the caller sums over pairs.

    Args:
        student_feature: (B, C, H, W).
        teacher_feature: (B, C', H', W'); no gradient reaches it. Maps of different heights or widths, square or not,
            are averaged down to the smaller ones first. An image of zeros has an attention of zeros.

    Returns:
        A scalar: the mean over batch and positions, 0 or more.

    Raises:
        ValueError: a feature without positions, or with one position left: its attention is always 1.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])  # one image, one channel, 2x2
        >>> teacher = torch.tensor([[[[0.0, 0.0], [0.0, 3.0]]]])
        >>> attention(student, teacher).item(), attention(teacher, 5 * teacher).item()
        (0.5, 0.0)
    """
    if student_feature.ndim != 4 or teacher_feature.ndim != 4:
        found = f"{tuple(student_feature.shape)} and {tuple(teacher_feature.shape)}"
        raise ValueError(f"attention compares maps (B, C, H, W), not {found}")
    student, teacher = same_size(exact(student_feature), exact(teacher_feature.detach()))
    if student[0, 0].numel() == 1:
        ours, theirs = tuple(student_feature.shape[2:]), tuple(teacher_feature.shape[2:])
        raise ValueError(
            f"attention compares maps of more than one position, not {ours} of the student and {theirs} of "
            "the teacher, of which one is left when both are of a size; tap shallower layers"
        )
    return (_attention(student) - _attention(teacher)).square().mean()


def _attention(feature: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H·W), each row of length 1."""
    return unit(feature.square().mean(1).flatten(1))


METHOD = Method(function=attention, taps="maps")
