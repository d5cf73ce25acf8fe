"""Accuracy with its uncertainty, calibration, the worst mistakes, paired comparisons, and signs that a model has
learned nothing. NumPy only.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.wording import counted

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

BINS = 15
_Z95 = 1.959964
# Of the largest output: what a kernel may round differently for another place in a batch.
_ROUNDING = 1e-6


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927), which stays valid for proportions near 0 and 1."""
    share = correct / count
    shrink = 1.0 + _Z95**2 / count
    centre = (share + _Z95**2 / (2 * count)) / shrink
    half = _Z95 * math.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


# Of the test images, certainly lost.
_MUCH = 0.05


@dataclass(frozen=True)
class Difference:
    """The difference of two models' accuracies, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0.0 or self.high < 0.0

    @property
    def much_worse(self) -> bool:
        """Whether certainly more than 5 points are lost."""
        return self.high < -_MUCH


def unpaired(one: tuple[int, int], other: tuple[int, int]) -> Difference:
    """The difference of two accuracies on different images (Newcombe 1998, Statistics in Medicine 17:873, method 10).

    Args:
        one, other: (correct, count) of each model.
    """
    return _square_and_add(one, other, 0.0)


def paired(one: Bools, other: Bools) -> Difference:
    """The difference of two accuracies on the same images (Newcombe 1998, Statistics in Medicine 17:2635, method 10).

    Two models usually fail on the same images, so that the difference is known better than either accuracy.

    Args:
        one, other: (N,), whether each model was right, for the same images in the same order.
    """
    count = len(one)
    both, first = int((one & other).sum()), int((one & ~other).sum())
    second, neither = int((other & ~one).sum()), int((~one & ~other).sum())
    if not first and not second:
        return Difference(0.0, 0.0, 0.0)
    products = (both + first) * (second + neither) * (both + second) * (first + neither)
    surplus = both * neither - first * second
    corrected = max(surplus - count / 2, 0.0) if surplus > 0 else float(surplus)  # for continuity
    correlation = corrected / math.sqrt(products) if products else 0.0
    return _square_and_add((both + first, count), (both + second, count), correlation)


def _square_and_add(one: tuple[int, int], other: tuple[int, int], correlation: float) -> Difference:
    p, (p_low, p_high) = one[0] / one[1], wilson(*one)
    q, (q_low, q_high) = other[0] / other[1], wilson(*other)

    def reach(mine: float, theirs: float) -> float:
        return math.sqrt(max(0.0, mine**2 - 2 * correlation * mine * theirs + theirs**2))

    value = p - q
    return Difference(value, value - reach(p - p_low, q_high - q), value + reach(p_high - p, q - q_low))


def score_of(row: Mapping[str, Any]) -> float:
    """The figure that a row of an evaluation is judged by.

    It is the accuracy; where the images had no labels the agreement with the float network, and where they have several
    the mean average precision.
    """
    return float(next(row[key] for key in ("accuracy", "agreement", "mAP") if key in row))


def packed(correct: Bools) -> str:
    """Whether each image was answered rightly, as text: one bit per image, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def unpacked(text: str, count: int) -> Bools:
    """The inverse of packed(). Raises ValueError where the text is not that of `count` images."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    if len(bits) != -(-count // 8) * 8:
        raise ValueError(f"{len(bits)} bits for {count} images")
    return bits[:count].astype(bool)


@dataclass(frozen=True)
class ClassAccuracy:
    """The accuracy on the images of one class (its recall, 0 to 1), with its 95 % interval, over `samples` images."""

    accuracy: float
    interval: tuple[float, float]
    samples: int


@dataclass(frozen=True)
class Bin:
    """The images with a confidence in one of the bins of equal width from 0 to 1.

    Attributes:
        count: how many.
        confidence, accuracy: the means over them, 0 to 1; None where there are none.
    """

    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How well the confidence in an answer, its softmax probability, agrees with how often it is right.

    Attributes:
        ece: expected calibration error, 0 to 1.
        nll: negative log-likelihood of the labels, in nats per image.
        confidence, accuracy: the means over the images, 0 to 1.
        samples: the number of images; those whose outputs are not finite do not count.
        bins: the reliability diagram, from the lowest confidence.
    """

    ece: float
    nll: float
    confidence: float
    accuracy: float
    samples: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer to the image at `row`, and the answer's probability (0 to 1)."""

    row: int
    label: str
    answer: str
    probability: float


def reliability(confidence: Doubles, correct: Bools, bins: int = BINS) -> tuple[Bin, ...]:
    """Accuracy and mean confidence by confidence: bin m of M holds the confidences in ((m - 1) / M, m / M].

    Args:
        confidence: (N,), from 0 to 1.
        correct: (N,), whether each answer was right.
        bins: M.
    """
    number = np.clip(np.ceil(confidence * bins).astype(np.int64), 1, bins) - 1
    counts = np.bincount(number, minlength=bins)
    confidences = np.bincount(number, confidence, bins)
    right = np.bincount(number, correct, bins)
    return tuple(
        Bin(int(n), float(c / n), float(r / n)) if n else Bin(0, None, None)
        for n, c, r in zip(counts, confidences, right, strict=True)
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE = sum over the bins B_m of |B_m| / N * |accuracy(B_m) - confidence(B_m)|, from 0 to 1.

    Guo et al., On Calibration of Modern Neural Networks (2017), section 2, with 15 bins as there. Over few images it is
    above 0 by chance, also for a perfectly calibrated model.

    Args:
        bins: of at least one image together.
    """
    gaps = [
        each.count * abs(each.accuracy - each.confidence)
        for each in bins
        if each.accuracy is not None and each.confidence is not None
    ]
    return sum(gaps) / sum(each.count for each in bins)


class Outputs:
    """Collects a model's outputs batch by batch: its answers, its confidence, and the signs that it learned nothing."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self.confusion: Counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        self._hits: Counts = np.zeros(len(classes), dtype=np.int64)
        self._correct: list[Bools] = []
        self._answers: list[Counts] = []
        self._labels: list[Counts] = []
        # Of the answer, and of the label; NaN where an output is not finite.
        self._log_answer: list[Doubles] = []
        self._log_label: list[Doubles] = []
        self._first: Doubles | None = None
        self._spread, self._largest, self._not_finite = 0.0, 0.0, 0

    def add(self, outputs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> None:
        """One batch: (B, C) logits, and (B,) labels."""
        answers = outputs.argmax(1)
        np.add.at(self.confusion, (labels, answers), 1)
        finite = np.isfinite(outputs).all(axis=1)
        correct = (answers == labels) & finite
        np.add.at(self._hits, labels[correct], 1)
        self._correct.append(correct)
        self._not_finite += int((~finite).sum())
        self._answers.append(answers.astype(np.int64))
        self._labels.append(labels.astype(np.int64))
        whole = outputs[finite].astype(np.float64)
        self._add_likelihoods(whole, finite, answers, labels)
        if len(whole):
            self._first = whole[0] if self._first is None else self._first
            self._spread = max(self._spread, float(np.abs(whole - self._first).max()))
            self._largest = max(self._largest, float(np.abs(whole).max()))

    def _add_likelihoods(
        self,
        whole: Doubles,
        finite: Bools,
        answers: npt.NDArray[np.integer],
        labels: npt.NDArray[np.integer],
    ) -> None:
        shifted = whole - whole.max(1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        for collected, classes in ((self._log_answer, answers), (self._log_label, labels)):
            values = np.full(len(finite), np.nan)
            values[finite] = log[np.arange(len(log)), classes[finite]]
            collected.append(values)

    @property
    def correct(self) -> Bools:
        """(N,), in the order of the images; an output that is not finite is wrong."""
        return np.concatenate(self._correct) if self._correct else np.zeros(0, dtype=bool)

    @property
    def majority(self) -> tuple[str, float]:
        """The most frequent label, and its share of the images."""
        counts = self.confusion.sum(1)
        label = int(counts.argmax())
        return self._classes[label], float(counts[label] / max(1, counts.sum()))

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the recalls of the classes that have images."""
        counts = self.confusion.sum(1)
        there = counts > 0
        return float((self._hits[there] / counts[there]).mean()) if there.any() else 0.0

    def per_class(self) -> dict[str, ClassAccuracy]:
        """The accuracy of each class that has images, in the order of the classes."""
        right, counts = self._hits.tolist(), self.confusion.sum(1).tolist()
        return {
            name: ClassAccuracy(hits / count, wilson(hits, count), count)
            for name, hits, count in zip(self._classes, right, counts, strict=True)
            if count
        }

    def calibration(self) -> Calibration | None:
        """None where no image has finite outputs."""
        log = np.concatenate(self._log_answer) if self._log_answer else np.zeros(0)
        known = ~np.isnan(log)
        if not known.any():
            return None
        confidence, correct = np.exp(log[known]), self.correct[known]
        bins = reliability(confidence, correct)
        return Calibration(
            ece=expected_calibration_error(bins),
            nll=abs(float(np.concatenate(self._log_label)[known].mean())),
            confidence=float(confidence.mean()),
            accuracy=float(correct.mean()),
            samples=len(confidence),
            bins=bins,
        )

    def worst(self, most: int = 12) -> list[Mistake]:
        """The wrong answers with the highest probabilities, the highest first, of images with finite outputs."""
        if not self._answers:
            return []
        answers, labels = np.concatenate(self._answers), np.concatenate(self._labels)
        log = np.concatenate(self._log_answer)
        wrong = np.flatnonzero((answers != labels) & ~np.isnan(log))
        ranked = wrong[np.argsort(-log[wrong], kind="stable")][:most].tolist()
        return [
            Mistake(row, self._classes[labels[row]], self._classes[answers[row]], float(np.exp(log[row])))
            for row in ranked
        ]

    def problems(self, *, of_network: bool = False) -> list[str]:
        """Why the outputs cannot be believed, the plainest reason first; empty for a model that has learned something.

        An accuracy that is no better than that of always giving the most frequent class counts, and what is not
        distinguishable from it with 95 % confidence.

        Args:
            of_network: whether the labels are another network's answers: then most images may well have the same.
        """
        count = int(self.confusion.sum())
        found = []
        if self._not_finite:
            found.append(f"NaN or infinite outputs for {self._not_finite} of {counted(count, 'image')}")
        answered = np.flatnonzero(self.confusion.sum(0))
        if self._not_finite < count and count > 1 and self._spread <= _ROUNDING * self._largest:
            found.append("the same output for every image")
        elif len(answered) == 1 and np.count_nonzero(self.confusion.sum(1)) > 1:
            found.append(f"one class, {self._classes[int(answered[0])]}, for every image")
        correct, (name, share) = int(self.correct.sum()), self.majority
        if not of_network and not found and count and share < 1.0 and wilson(correct, count)[0] <= share:
            better = "worse" if correct / count < share else "not certainly better"
            found.append(
                f"its accuracy, {correct / count:.1%}, is {better} than that of always answering {name}, the most "
                f"frequent class: {share:.1%}"
            )
        return found


def most_confused(confusion: Counts, classes: Sequence[str], most: int = 5) -> list[tuple[str, str, int]]:
    """The most frequent confusions as (label, answer, count).

    Args:
        confusion: (C, C), rows are labels, columns answers.
        classes: the names of both.
        most: how many at most.
    """
    errors = confusion - np.diag(confusion.diagonal())
    worst = np.argsort(-errors, axis=None, kind="stable")[:most]
    pairs = [divmod(int(flat), len(classes)) for flat in worst]
    return [
        (classes[label], classes[answer], int(errors[label, answer]))
        for label, answer in pairs
        if errors[label, answer]
    ]
