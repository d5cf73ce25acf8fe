"""Quality of answers where an image has any number of the classes. NumPy only.

Average precision is that of scikit-learn's average_precision_score: the area below the step function of precision over
recall, AP = Σ_n (R_n − R_{n−1}) P_n, where images of equal score enter at once. mAP is its mean over the classes that
have images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.runtime.statistics import Difference

Scores = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
# (N, C), 1 where the image has the class.
Labels = npt.NDArray[np.integer[Any]]

ROUNDS = 1000
_SEED = 0
# Weights of images in resamples that are held at once.
_HELD = 1 << 21
# Of the largest output: what a kernel may round differently for another place in a batch.
_ROUNDING = 1e-6


def sigmoid(logits: npt.NDArray[np.floating]) -> Scores:
    """Probabilities of independent classes, without overflow."""
    powers = np.exp(-np.abs(logits.astype(np.float64)))
    scores: Scores = (np.where(logits >= 0, 1.0, powers) / (1.0 + powers)).astype(np.float32)
    return scores


@dataclass(frozen=True)
class _Order:
    """One class's images from the highest score down.

    Attributes:
        rows: (N,) the images.
        ends: (N,) for each place the last place of the same score.
        positives: the places of the images that have the class.
    """

    rows: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]

    @classmethod
    def of(cls, scores: npt.NDArray[np.floating], labels: Labels) -> _Order:
        ranked = np.where(np.isnan(scores), -np.inf, scores)
        rows = np.argsort(-ranked, kind="stable")
        ordered = ranked[rows]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        ends = last[np.searchsorted(last, np.arange(len(rows)))]
        return cls(rows, ends, np.flatnonzero(labels[rows]))


def average_precisions(scores: npt.NDArray[np.floating], labels: Labels) -> Floats64:
    """The average precision of each class: (C,), NaN for a class without images.

    Args:
        scores: (N, C), higher for a class that is more probable; NaN counts as the lowest.
        labels: (N, C).
    """
    orders = [_Order.of(scores[:, c], labels[:, c]) for c in range(scores.shape[1])]
    precisions: Floats64 = _precisions(orders, np.ones((len(scores), 1), np.int32))[0]
    return precisions


def mean_average_precision(scores: npt.NDArray[np.floating], labels: Labels) -> float:
    """mAP: the mean over the classes that have images; 0 where none has. Args as average_precisions()."""
    return float(_mean(average_precisions(scores, labels)[None])[0])


def resampled(scores: npt.NDArray[np.floating], labels: Labels, *, rounds: int = ROUNDS) -> Floats64:
    """The mAP of as many resamples of the images, with replacement (bootstrap; Efron 1979): (rounds,).

    Equal numbers of images give equal resamples, so that two models are compared on the same ones. A class without an
    image in a resample is left out of its mean.

    Args:
        scores, labels: see average_precisions().
        rounds: how many resamples.
    """
    generator, count = np.random.default_rng(_SEED), len(scores)
    orders = [_Order.of(scores[:, c], labels[:, c]) for c in range(scores.shape[1])]
    at_once = max(1, _HELD // max(1, count))
    found = []
    for start in range(0, rounds, at_once):
        drawn = [generator.integers(0, count, count) for _ in range(min(at_once, rounds - start))]
        weights = np.stack([np.bincount(rows, minlength=count).astype(np.int32) for rows in drawn], axis=1)
        found.append(_mean(_precisions(orders, weights)))
    return np.concatenate(found)


def interval(replicates: Sequence[float] | Floats64) -> tuple[float, float]:
    """The 95 % percentile interval of resampled()."""
    low, high = np.percentile(np.asarray(replicates), [2.5, 97.5])
    return float(low), float(high)


def paired(value: float, one: Sequence[float], other: Sequence[float]) -> Difference:
    """The difference of two models' mAP, and its 95 % interval.

    Args:
        value: the difference on all images.
        one, other: resampled() of each, for the same images in the same order.
    """
    gaps = np.asarray(one) - np.asarray(other)
    if not gaps.any():
        return Difference(value, value, value)
    low, high = interval(gaps)
    return Difference(value, low, high)


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

    def summary(self, thresholds: Sequence[float]) -> dict[str, Any]:
        """What is measured on these images, as JSON.

        Args:
            thresholds: (C,), chosen on other images.

        Returns:
            mAP with its 95 % interval and the resamples that it is from, F1 at the thresholds, the average precision of
            each class that has images, the names of the others, and problems().
        """
        logits, labels = self.logits, self.labels
        each = average_precisions(logits, labels)
        mean, replicates = mean_average_precision(logits, labels), resampled(logits, labels)
        low, high = interval(replicates)
        micro, macro = f1(sigmoid(logits), labels, thresholds)
        known = zip(self._classes, each.tolist(), strict=True)
        return {
            "mAP": mean,
            "interval": [low, high],
            "samples": len(logits),
            "chance": self.chance,
            "micro_f1": micro,
            "macro_f1": macro,
            "thresholds": list(thresholds),
            "problems": self.problems(mean, low),
            "average_precisions": {name: round(value, 6) for name, value in known if not np.isnan(value)},
            "unmeasured": [name for name, value in zip(self._classes, each, strict=True) if np.isnan(value)],
            "replicates": [round(float(value), 6) for value in replicates],
        }

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
            found.append(f"NaN or infinite outputs for {int((~whole).sum())} of {count} images")
        usable = logits[whole].astype(np.float64)
        if len(usable) > 1 and np.abs(usable - usable[0]).max() <= _ROUNDING * np.abs(usable).max():
            found.append("the same output for every image")
        if not found and low <= self.chance < 1.0:
            found.append(
                f"its mAP, {mean:.1%}, is not certainly better than that of a random order of the images: "
                f"{self.chance:.1%}"
            )
        return found


def _precisions(orders: Sequence[_Order], weights: npt.NDArray[np.int32]) -> Floats64:
    """The average precisions (R, C) of the images, each counted as often as `weights` (N, R) say.

    Sums run from one place at which the recall changes to the next: no more of them than images of the class.
    """
    found = np.full((weights.shape[1], len(orders)), np.nan)
    for number, order in enumerate(orders):
        if not len(order.positives):
            continue
        ends, first = np.unique(order.ends[order.positives], return_index=True)
        ordered = weights[order.rows[: ends[-1] + 1]]
        seen = np.add.reduceat(ordered, np.append(0, ends[:-1] + 1), axis=0).cumsum(0)
        own = np.add.reduceat(ordered[order.positives], first, axis=0)
        right = own.cumsum(0)
        total = right[-1]
        area = (own * (right / np.maximum(seen, 1))).sum(0)
        there = total > 0
        found[there, number] = area[there] / total[there]
    return found


def _mean(precisions: Floats64) -> Floats64:
    """The mean over the classes that have images, row by row."""
    there = ~np.isnan(precisions)
    means: Floats64 = np.where(there, precisions, 0.0).sum(1) / np.maximum(there.sum(1), 1)
    return means


def _best_threshold(scores: Scores, labels: Labels) -> float:
    order = _Order.of(scores, labels)
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
