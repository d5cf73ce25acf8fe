"""Quality of answers where an image has any number of the classes. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.runtime.average_precision import (
    Labels,
    Order,
    average_precisions,
    interval,
    mean_of,
    resampled,
)
from edgekd.runtime.label_calibration import LabelCalibration, calibration_error, label_calibration, sigmoid
from edgekd.wording import counted

Scores = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]

# Of the largest output: what a kernel may round differently for another place in a batch.
_ROUNDING = 1e-6
# Of one image, the most confident first.
_SHOWN_LABELS = 3


@dataclass(frozen=True)
class ClassPrecision:
    """The answers for one class.

    Attributes:
        average_precision: see edgekd.runtime.average_precision; 0 to 1.
        interval: its 95 % interval, over resampled images.
        samples: the number of images that have the class.
        probability: the mean of its probabilities over all images, 0 to 1; above the share of images that have it they
            are too high. None where no output is finite.
        ece: its expected calibration error, see LabelCalibration.
    """

    average_precision: float
    interval: tuple[float, float]
    samples: int
    probability: float | None
    ece: float | None


@dataclass(frozen=True)
class WrongLabel:
    """A wrong decision about one class of an image.

    Attributes:
        label: the class.
        given: whether it was answered, though the image does not have it; else the image has it, and it was missed.
        probability: what the model gave for it, 0 to 1.
    """

    label: str
    given: bool
    probability: float


@dataclass(frozen=True)
class WrongLabels:
    """The wrong labels of the image at `row`, the most confident first, at most 3 of them."""

    row: int
    wrong: tuple[WrongLabel, ...]


@dataclass(frozen=True)
class Summary:
    """What is measured on images of several labels; shares and probabilities are from 0 to 1.

    Attributes:
        mAP: mean average precision, see edgekd.runtime.average_precision.
        interval: its 95 % interval.
        samples: the number of images.
        chance: what a random order of the images would reach.
        micro_f1, macro_f1: at the thresholds.
        thresholds: (C,), from which probability a class is answered.
        problems: why the outputs cannot be believed; empty for a model that has learned something.
        per_class: of each class that has images.
        unmeasured: the other classes.
        calibration: of the probabilities; None where no output is finite.
        worst: the images with the most confident wrong labels, the worst first.
        replicates: the mAP of the resamples that the interval is from.
    """

    mAP: float  # noqa: N815
    interval: tuple[float, float]
    samples: int
    chance: float
    micro_f1: float
    macro_f1: float
    thresholds: tuple[float, ...]
    problems: tuple[str, ...]
    per_class: dict[str, ClassPrecision]
    unmeasured: tuple[str, ...]
    calibration: LabelCalibration | None
    worst: tuple[WrongLabels, ...]
    replicates: tuple[float, ...]


def best_thresholds(scores: Scores, labels: Labels) -> list[float]:
    """For each class the threshold with the highest F1, in the middle between two scores; 0.5 for one without images.

    Args:
        scores: (N, C) probabilities; a class is answered where its score is at least the threshold.
        labels: (N, C).
    """
    return [_best_threshold(scores[:, c], labels[:, c]) for c in range(scores.shape[1])]


def f1(scores: Scores, labels: Labels, thresholds: Sequence[float]) -> tuple[float, float]:
    """Micro and macro F1: of all answers together, and the mean over the classes that have images.

    Args:
        scores, labels: see best_thresholds().
        thresholds: (C,).
    """
    answers, truth = scores >= np.asarray(thresholds), labels.astype(bool)
    right, answered, there = (answers & truth).sum(0), answers.sum(0), truth.sum(0)
    micro = 2 * right.sum() / max(1, answered.sum() + there.sum())
    each = 2 * right / np.maximum(1, answered + there)
    return float(micro), float(each[there > 0].mean()) if (there > 0).any() else 0.0


class MultilabelOutputs:
    """Collects a model's outputs batch by batch."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._logits: list[npt.NDArray[np.floating]] = []
        self._labels: list[Labels] = []

    def add(self, logits: npt.NDArray[np.floating], labels: Labels) -> None:
        """One batch: (B, C) logits, and (B, C) labels."""
        self._logits.append(logits)
        self._labels.append(labels)

    @property
    def scores(self) -> Scores:
        """(N, C) probabilities, in the order of the images."""
        return sigmoid(self.logits)

    @property
    def logits(self) -> npt.NDArray[np.floating]:
        return np.concatenate(self._logits)

    @property
    def labels(self) -> Labels:
        return np.concatenate(self._labels)

    @property
    def chance(self) -> float:
        """The mAP of a random order, for many images: the mean share of images that have a class."""
        shares = self.labels.mean(0)
        return float(shares[shares > 0].mean()) if (shares > 0).any() else 0.0

    def summary(self, thresholds: Sequence[float]) -> Summary:
        """What is measured on these images.

        Args:
            thresholds: (C,), chosen on other images.
        """
        logits, labels = self.logits, self.labels
        each, resamples = average_precisions(logits, labels), resampled(logits, labels)
        mean, means = float(mean_of(each[None])[0]), mean_of(resamples)
        between = interval(means)
        micro, macro = f1(sigmoid(logits), labels, thresholds)
        return Summary(
            mAP=mean,
            interval=between,
            samples=len(logits),
            chance=self.chance,
            micro_f1=micro,
            macro_f1=macro,
            thresholds=tuple(thresholds),
            problems=tuple(self.problems(mean, between[0])),
            per_class=self._per_class(each, resamples),
            unmeasured=tuple(name for name, value in zip(self._classes, each, strict=True) if np.isnan(value)),
            calibration=self.calibration(),
            worst=tuple(self.worst(thresholds)),
            replicates=tuple(round(float(value), 6) for value in means),
        )

    def _per_class(self, each: Floats64, resamples: Floats64) -> dict[str, ClassPrecision]:
        """Of the classes that have images, from average_precisions() and resampled()."""
        logits, labels = self._finite()
        scores, present, found = sigmoid(logits).astype(np.float64), self.labels.sum(0).tolist(), {}
        for number, name in enumerate(self._classes):
            if np.isnan(each[number]):
                continue
            mean, ece = None, None
            if len(scores):
                mean = float(scores[:, number].mean())
                ece = calibration_error(scores[:, number], labels[:, number])
            between = interval(resamples[:, number])
            found[name] = ClassPrecision(float(each[number]), between, present[number], mean, ece)
        return found

    def calibration(self) -> LabelCalibration | None:
        """None where no image has finite outputs."""
        logits, labels = self._finite()
        return label_calibration(logits, labels) if logits.size else None

    def worst(self, thresholds: Sequence[float], most: int = 12) -> list[WrongLabels]:
        """The images with the most confident wrong labels, of images with finite outputs.

        A model is confident of a label with its probability where it gives it, and with 1 less that where it does not.

        Args:
            thresholds: (C,): a class is answered where its probability is at least that.
            most: how many images at most.
        """
        scores, truth = self.scores, self.labels.astype(bool)
        given = scores >= np.asarray(thresholds, dtype=np.float64)
        sure = np.where(given, scores, 1.0 - scores)
        sure[(given == truth) | ~np.isfinite(self.logits).all(axis=1, keepdims=True)] = -1.0
        rows = [row for row in np.argsort(-sure.max(1), kind="stable")[:most].tolist() if sure[row].max() >= 0]
        return [WrongLabels(row, self._wrong(row, sure, scores, given)) for row in rows]

    def _wrong(self, row: int, sure: Scores, scores: Scores, given: npt.NDArray[np.bool_]) -> tuple[WrongLabel, ...]:
        order = np.argsort(-sure[row], kind="stable")[:_SHOWN_LABELS].tolist()
        return tuple(
            WrongLabel(self._classes[c], bool(given[row, c]), float(scores[row, c])) for c in order if sure[row, c] >= 0
        )

    def _finite(self) -> tuple[Floats64, npt.NDArray[np.bool_]]:
        """Logits and labels of the images whose outputs are finite."""
        logits = self.logits
        whole = np.isfinite(logits).all(axis=1)
        return logits[whole].astype(np.float64), self.labels[whole].astype(bool)

    def problems(self, mean: float, low: float) -> list[str]:
        """Why the outputs cannot be believed; empty for a model that has learned something.

        Args:
            mean: its mAP.
            low: the lower end of its interval.
        """
        logits, count = self.logits, len(self.logits)
        whole = np.isfinite(logits).all(axis=1)
        found = []
        if not whole.all():
            found.append(f"NaN or infinite outputs for {int((~whole).sum())} of {counted(count, 'image')}")
        usable = logits[whole].astype(np.float64)
        if len(usable) > 1 and np.abs(usable - usable[0]).max() <= _ROUNDING * np.abs(usable).max():
            found.append("the same output for every image")
        if not found and low <= self.chance < 1.0:
            found.append(
                f"its mAP, {mean:.1%}, is not certainly better than that of a random order of the images: "
                f"{self.chance:.1%}"
            )
        return found


def _best_threshold(scores: Scores, labels: Labels) -> float:
    order = Order.of(scores, labels)
    if not len(order.positives):
        return 0.5
    truth = np.zeros(len(scores))
    truth[order.positives] = 1.0
    ends = np.unique(order.ends)
    values = 2 * np.cumsum(truth)[ends] / (ends + 1 + len(order.positives))
    end = int(ends[values.argmax()])
    ordered = scores[order.rows].astype(np.float64)
    below = ordered[end + 1] if end + 1 < len(ordered) else 0.0
    return float((ordered[end] + max(below, 0.0)) / 2)
