"""Calibration of probabilities of which each is about one class of an image. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.runtime.statistics import expected_calibration_error, reliability

Scores = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_Z95 = 1.959964


def sigmoid(logits: npt.NDArray[np.floating]) -> Scores:
    """Probabilities of independent classes, without overflow."""
    powers = np.exp(-np.abs(logits.astype(np.float64)))
    scores: Scores = (np.where(logits >= 0, 1.0, powers) / (1.0 + powers)).astype(np.float32)
    return scores


@dataclass(frozen=True)
class LabelBin:
    """The labels with a probability in one of the bins of equal width from 0 to 1.

    Attributes:
        count: how many.
        probability: the mean over them, 0 to 1; None where there are none.
        frequency: the share of them that the images have, 0 to 1; None where there are none.
    """

    count: int
    probability: float | None
    frequency: float | None


@dataclass(frozen=True)
class LabelCalibration:
    """How well the probabilities agree with how often images have the classes, over all pairs of an image and a class.

    Attributes:
        ece: expected calibration error, 0 to 1.
        brier: Brier score: the mean square of the differences of probability and label (0 or 1); lower is better.
        nll: negative log-likelihood, in nats per label.
        probability: the mean of the probabilities.
        frequency: the share of the labels that the images have.
        difference: probability less frequency, with its 95 % `interval` over the images.
        labels: the number of labels; those of images whose outputs are not finite do not count.
        bins: the reliability diagram, from the lowest probability.
    """

    ece: float
    brier: float
    nll: float
    probability: float
    frequency: float
    difference: float
    interval: tuple[float, float]
    labels: int
    bins: tuple[LabelBin, ...]


def label_calibration(logits: Floats64, labels: Bools) -> LabelCalibration:
    """The calibration over all pairs of an image and a class.

    Args:
        logits: (N, C), finite; at least one.
        labels: (N, C), whether the image has the class.
    """
    scores = sigmoid(logits).astype(np.float64)
    bins = reliability(scores.ravel(), labels.ravel())
    # Over the images, since the labels of one image are not independent.
    gaps = (scores - labels).mean(1)
    difference = float(gaps.mean())
    half = _Z95 * float(gaps.std(ddof=1)) / len(gaps) ** 0.5 if len(gaps) > 1 else 1.0
    return LabelCalibration(
        ece=expected_calibration_error(bins),
        brier=float(np.square(scores - labels).mean()),
        nll=float((np.logaddexp(0.0, logits) - logits * labels).mean()),
        probability=float(scores.mean()),
        frequency=float(labels.mean()),
        difference=difference,
        interval=(max(-1.0, difference - half), min(1.0, difference + half)),
        labels=scores.size,
        bins=tuple(LabelBin(each.count, each.confidence, each.accuracy) for each in bins),
    )


def calibration_error(scores: Floats64, labels: Bools) -> float:
    """The expected calibration error of probabilities (N,) of one class, from 0 to 1; see LabelCalibration."""
    return expected_calibration_error(reliability(scores, labels))
