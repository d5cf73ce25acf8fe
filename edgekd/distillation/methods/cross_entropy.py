from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgekd.distillation.method import Method
from edgekd.distillation.methods._logits import exact, labels, standardized
from edgekd.recipe.settings import ClassWeights

Smoothing = Annotated[float, Field(ge=0.0, lt=1.0)]


def cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    label_smoothing: Smoothing = 0.0,
    class_weights: ClassWeights = None,
    standardize: bool = False,
) -> Tensor:
    """−log softmax(z_s)[y]: the labels' own term, which most objectives keep beside the teacher's.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2, its second
    objective.

    Args:
        student_logits: (B, C), unnormalised.
        teacher_logits: not used.
        targets: (B,) class indices.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, section 7).
        class_weights: (C,) weights w_c; the loss is then Σ w_y loss / Σ w_y over the batch, as torch's cross_entropy
            computes it. In a recipe, "auto" stands for w_c = n / (K n_c) of the training split, with n_c of its n
            images in class c, and K classes.
        standardize: on the student's standardized logits (Sun et al. 2024 standardize only the teacher's term).

    Returns:
        A scalar: the cross-entropy in nats, mean over the batch.

    Raises:
        ValueError: no targets, or class_weights is "auto".

    Example:
        >>> import torch
        >>> round(cross_entropy(torch.tensor([[1.0, 0.0]]), targets=torch.tensor([0])).item(), 4)
        0.3133
    """
    student = standardized(student_logits) if standardize else exact(student_logits)
    if class_weights == "auto":
        raise ValueError("class_weights: auto is for recipes, which know the training images: pass numbers")
    weights = None if class_weights is None else student.new_tensor(class_weights)
    return F.cross_entropy(student, labels(targets, "cross_entropy"), weights, label_smoothing=label_smoothing)


METHOD = Method(function=cross_entropy, needs_labels=True, standardize="standardize", class_weights="class_weights")
