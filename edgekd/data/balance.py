"""Training on classes of unequal size: images drawn by class, and weights of classes in a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data.sources import Labels
from edgekd.errors import UsageError

Balance = Literal["none", "sqrt", "full"]
_POWERS: dict[Balance, float] = {"none": 0.0, "sqrt": 0.5, "full": 1.0}
# draw_order() and draw_view() use streams 0 to 2.
_STREAM = 3


def class_probabilities(counts: npt.NDArray[np.int64], balance: Balance) -> npt.NDArray[np.float64]:
    """The probability that a drawn image is of class c, which is proportional to n_c^(1 − a).

    a is 0 for "none", which keeps the shares of the images, 0.5 for "sqrt", and 1 for "full", which draws all classes
    equally often. The images of a class are equally probable.

    Args:
        counts: (C,), n_c, the images of each class; a class without images is never drawn.
        balance: the recipe's.
    """
    shares = np.where(counts > 0, counts.astype(np.float64) ** (1.0 - _POWERS[balance]), 0.0)
    probabilities: npt.NDArray[np.float64] = shares / shares.sum()
    return probabilities


def draw_by_class(labels: Labels, balance: Balance, *, seed: int, epoch: int) -> Labels:
    """The images of one epoch, as many as there are, drawn with replacement.

    Args:
        labels: (N,) of the training images, none negative.
        balance: see class_probabilities().
        seed, epoch: equal ones give equal images.

    Returns:
        (N,) int64, positions in `labels`.
    """
    generator = np.random.default_rng([seed % 2**64, epoch, _STREAM])
    counts = np.bincount(labels)
    by_class, starts = np.argsort(labels, kind="stable"), np.cumsum(counts) - counts
    drawn = generator.choice(len(counts), size=len(labels), p=class_probabilities(counts, balance))
    places = (generator.random(len(labels)) * counts[drawn]).astype(np.int64)
    rows: Labels = by_class[starts[drawn] + places]
    return rows


def counts_of(labels: Labels, classes: int) -> tuple[int, ...]:
    """How many images have each label; unlabelled ones (−1) do not count.

    Args:
        labels: (N,), or (N, C) with several labels per image.
        classes: how many there are.
    """
    if labels.ndim == 2:
        return tuple(labels.sum(0).tolist())
    return tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist())


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """The weight n / (K n_c) of each of K classes with n_c of n images: 1 each where the classes are equally large.

    Raises:
        UsageError: a class has no image.
    """
    if not counts or min(counts) == 0:
        raise UsageError(
            "class_weights: auto needs labelled training images of every class",
            found=f"images of {sum(count > 0 for count in counts)} of {len(counts)} classes",
            hint="remove class_weights, or set a weight for each class",
        )
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def resolved(weights: Literal["auto"] | tuple[float, ...] | None, counts: Sequence[int]) -> tuple[float, ...] | None:
    """The weights of a recipe's `class_weights`.

    Args:
        weights: the recipe's; "auto" stands for those of class_weights().
        counts: the labelled training images of each class.

    Raises:
        UsageError: a class without an image, or another number of weights than classes.
    """
    if weights == "auto":
        return class_weights(counts)
    if weights is not None and len(weights) != len(counts):
        raise UsageError(
            "class_weights has another length", found=len(weights), allowed=f"one for each of {len(counts)} classes"
        )
    return weights
