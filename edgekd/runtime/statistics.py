"""Accuracy with its uncertainty, paired comparisons, and signs that a model has learned nothing. NumPy only."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

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


def packed(correct: Bools) -> str:
    """Whether each image was answered rightly, as text: one bit per image, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def unpacked(text: str, count: int) -> Bools:
    """The inverse of packed(). Raises ValueError where the text is not that of `count` images."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    if len(bits) != -(-count // 8) * 8:
        raise ValueError(f"{len(bits)} bits for {count} images")
    return bits[:count].astype(bool)


class Outputs:
    """Collects a model's outputs batch by batch, for the signs that it has learned nothing."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self.confusion: Counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        self._correct: list[Bools] = []
        self._first: npt.NDArray[np.float64] | None = None
        self._spread, self._largest, self._not_finite = 0.0, 0.0, 0

    def add(self, outputs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> None:
        """One batch: (B, C) logits or probabilities, and (B,) labels."""
        answers = outputs.argmax(1)
        np.add.at(self.confusion, (labels, answers), 1)
        finite = np.isfinite(outputs).all(axis=1)
        self._correct.append((answers == labels) & finite)
        self._not_finite += int((~finite).sum())
        whole = outputs[finite].astype(np.float64)
        if len(whole):
            self._first = whole[0] if self._first is None else self._first
            self._spread = max(self._spread, float(np.abs(whole - self._first).max()))
            self._largest = max(self._largest, float(np.abs(whole).max()))

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
        return float((self.confusion.diagonal()[there] / counts[there]).mean()) if there.any() else 0.0

    def problems(self) -> list[str]:
        """Why the outputs cannot be believed, the plainest reason first; empty for a model that has learned something.

        An accuracy that is no better than that of always giving the most frequent class counts, and what is not
        distinguishable from it with 95 % confidence.
        """
        count = int(self.confusion.sum())
        found = []
        if self._not_finite:
            found.append(f"NaN or infinite outputs for {self._not_finite} of {count} images")
        answered = np.flatnonzero(self.confusion.sum(0))
        if self._not_finite < count and count > 1 and self._spread <= _ROUNDING * self._largest:
            found.append("the same output for every image")
        elif len(answered) == 1 and np.count_nonzero(self.confusion.sum(1)) > 1:
            found.append(f"one class, {self._classes[int(answered[0])]}, for every image")
        correct, (name, share) = int(self.correct.sum()), self.majority
        if not found and count and share < 1.0 and wilson(correct, count)[0] <= share:
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
