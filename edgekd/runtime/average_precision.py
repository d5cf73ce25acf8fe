"""Average precision of images with any number of the classes, and its uncertainty. NumPy only.

Average precision is that of scikit-learn's average_precision_score: the area below the step function of precision over
recall, AP = Σ_n (R_n − R_{n−1}) P_n, where images of equal score enter at once. mAP is its mean over the classes that
have images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.runtime.statistics import Difference

Floats64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
# (N, C), 1 where the image has the class.
Labels = npt.NDArray[np.integer[Any]]

_MOST_RESAMPLES, _FEWEST_RESAMPLES = 1000, 400
# Scores that the resamples of a set look up together, where that leaves more than the fewest: a second or two.
_LOOKED_UP = 1_500_000_000
_SEED = 0
# Of (image, class) pairs whose order is held at once: 32 MB.
_HELD = 1 << 22


@dataclass(frozen=True)
class Order:
    """One class's images from the highest score down.

    Attributes:
        rows: (N,) the images.
        ends: (N,) for each place the last place of the same score.
        positives: the places of the images that have the class.
    """

    rows: Counts
    ends: Counts
    positives: Counts

    @classmethod
    def of(cls, scores: npt.NDArray[np.floating], labels: Labels) -> Order:
        """From (N,) scores, where NaN counts as the lowest, and (N,) labels."""
        ranked = np.where(np.isnan(scores), -np.inf, scores)
        rows = np.argsort(-ranked, kind="stable")
        ordered = ranked[rows]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        ends = last[np.searchsorted(last, np.arange(len(rows)))]
        return cls(rows, ends, np.flatnonzero(labels[rows]))


@dataclass(frozen=True)
class Packed:
    """Several counts of each image in the bits of one number, so that one pass adds up all of them.

    Looking up the images in another order takes most of the time of a resample. A sum does not reach into the next
    lane, because the counts of a resample add up to the number of images, which fits into one.

    Attributes:
        counts: (N,) the packed counts.
        width: of a lane, in bits.
        lanes: how many counts there are of each image.
    """

    counts: npt.NDArray[np.uint64]
    width: int
    lanes: int

    @staticmethod
    def most(images: int) -> int:
        """How many counts of so many images fit into one number."""
        return 64 // images.bit_length()

    @classmethod
    def of(cls, counts: Sequence[Counts]) -> Packed:
        """From counts (N,), at most most(N) of them, of which each has a sum of N."""
        width = len(counts[0]).bit_length()
        packed = np.zeros(len(counts[0]), np.uint64)
        for lane, each in enumerate(counts):
            packed |= each.astype(np.uint64) << np.uint64(lane * width)
        return cls(packed, width, len(counts))

    def unpacked(self, sums: npt.NDArray[np.uint64]) -> Iterator[Counts]:
        """The sums of each lane from sums of the packed counts."""
        mask = np.uint64((1 << self.width) - 1)
        for lane in range(self.lanes):
            yield ((sums >> np.uint64(lane * self.width)) & mask).astype(np.int64)


@dataclass(frozen=True)
class _Orders:
    """The orders of some classes one behind the other, so that one pass over flat arrays serves all of them.

    Each class's order ends with its last image that has the class. A step is a place where the recall changes.

    Attributes:
        numbers: (K,) the classes, in the columns of the labels; those without images are left out.
        rows: (L,) the images.
        steps: (G,) where in `rows` the images of each step begin.
        positives: (P,) the images that have the class.
        own: (G,) where in `positives` those of each step begin.
        classes: (K,) where in `steps` those of each class begin.
    """

    numbers: Counts
    rows: Counts
    steps: Counts
    positives: Counts
    own: Counts
    classes: Counts

    @classmethod
    def of(cls, numbers: Sequence[int], orders: Sequence[Order]) -> _Orders:
        rows, steps, positives, own, classes = [], [], [], [], []
        images = there = recalls = 0  # before the class at hand
        for order in orders:
            ends, first = np.unique(order.ends[order.positives], return_index=True)
            rows.append(order.rows[: ends[-1] + 1])
            steps.append(np.append(0, ends[:-1] + 1) + images)
            positives.append(order.rows[order.positives])
            own.append(first + there)
            classes.append(recalls)
            images, there, recalls = images + len(rows[-1]), there + len(order.positives), recalls + len(ends)
        return cls(
            numbers=np.asarray(numbers),
            rows=np.concatenate(rows),
            steps=np.concatenate(steps),
            positives=np.concatenate(positives),
            own=np.concatenate(own),
            classes=np.asarray(classes),
        )

    def precisions(self, packed: Packed) -> Floats64:
        """The average precisions (R, K) of the images, each counted as often as R resamples say; NaN without images."""
        # An index that is out of range cannot occur; "clip" is the mode without a check.
        steps = np.add.reduceat(packed.counts.take(self.rows, mode="clip"), self.steps)
        own = np.add.reduceat(packed.counts[self.positives], self.own)
        lanes = zip(packed.unpacked(steps), packed.unpacked(own), strict=True)
        return np.stack([self._areas(*lane) for lane in lanes])

    def _areas(self, images: Counts, own: Counts) -> Floats64:
        """From the numbers of images, and of those with the class, that each step adds (G,)."""
        seen, right = self._summed(images), self._summed(own)
        total = right[np.append(self.classes[1:], len(right)) - 1]
        area = np.add.reduceat(own * (right / np.maximum(seen, 1)), self.classes)
        found: Floats64 = np.where(total > 0, area / np.maximum(total, 1), np.nan)
        return found

    def _summed(self, values: Counts) -> Counts:
        """The running sums within each class."""
        sums: Counts = np.cumsum(values)
        before = sums[self.classes] - values[self.classes]
        return sums - np.repeat(before, np.diff(self.classes, append=len(values)))


def average_precisions(scores: npt.NDArray[np.floating], labels: Labels) -> Floats64:
    """The average precision of each class: (C,), NaN for a class without images.

    Args:
        scores: (N, C), higher for a class that is more probable; NaN counts as the lowest.
        labels: (N, C).
    """
    found = np.full(scores.shape[1], np.nan)
    for orders in _ordered(scores, labels):
        found[orders.numbers] = orders.precisions(Packed.of([np.ones(len(scores), np.int64)]))[0]
    return found


def mean_average_precision(scores: npt.NDArray[np.floating], labels: Labels) -> float:
    """mAP: the mean over the classes that have images; 0 where none has. Args as average_precisions()."""
    return float(mean_of(average_precisions(scores, labels)[None])[0])


def resampled(scores: npt.NDArray[np.floating], labels: Labels, *, rounds: int | None = None) -> Floats64:
    """The average precisions (rounds, C) on resamples of the images, with replacement (bootstrap; Efron 1979).

    Equal numbers of images and classes give equal resamples, so that two models are compared on the same ones. NaN
    where a resample has no image of a class.

    Args:
        scores, labels: see average_precisions().
        rounds: how many resamples; None: resamples_for() this set.
    """
    count, classes = scores.shape
    rounds = rounds if rounds is not None else resamples_for(count, classes)
    found = np.full((rounds, classes), np.nan)
    for orders in _ordered(scores, labels):
        done = 0
        for packed in _resamples(count, rounds):
            found[done : done + packed.lanes, orders.numbers] = orders.precisions(packed)
            done += packed.lanes
    return found


def resamples_for(count: int, classes: int) -> int:
    """How many resamples a set gets: 1,000, or fewer for a large one, but at least 400.

    The ends of a 95 % interval then have a Monte-Carlo standard error of 4 % (1,000 resamples) to 7 % (400) of half its
    width, which is √(0.025 · 0.975 / rounds) / (0.0584 · 1.96) for a normal distribution.

    Args:
        count: of images.
        classes: how many.
    """
    return min(_MOST_RESAMPLES, max(_FEWEST_RESAMPLES, _LOOKED_UP // max(1, count * classes)))


def mean_of(precisions: Floats64) -> Floats64:
    """The mean over the classes that have images, row by row; 0 where none has."""
    there = ~np.isnan(precisions)
    means: Floats64 = np.where(there, precisions, 0.0).sum(1) / np.maximum(there.sum(1), 1)
    return means


def interval(replicates: Sequence[float] | Floats64) -> tuple[float, float]:
    """The 95 % percentile interval of a resampled figure; resamples without one (NaN) do not count."""
    low, high = np.nanpercentile(np.asarray(replicates), [2.5, 97.5])
    return float(low), float(high)


def paired(value: float, one: Sequence[float], other: Sequence[float]) -> Difference:
    """The difference of two models' mAP, and its 95 % interval.

    Args:
        value: the difference on all images.
        one, other: mean_of() resampled() of each, for the same images in the same order.
    """
    gaps = np.asarray(one) - np.asarray(other)
    if not gaps.any():
        return Difference(value, value, value)
    low, high = interval(gaps)
    return Difference(value, low, high)


def _ordered(scores: npt.NDArray[np.floating], labels: Labels) -> Iterator[_Orders]:
    """The orders of all classes that have images, in parts of limited size."""
    numbers = np.flatnonzero(labels.any(axis=0)).tolist()
    at_once = max(1, _HELD // max(1, len(scores)))
    for start in range(0, len(numbers), at_once):
        part = numbers[start : start + at_once]
        yield _Orders.of(part, [Order.of(scores[:, c], labels[:, c]) for c in part])


def _resamples(count: int, rounds: int) -> Iterator[Packed]:
    """How often each image is in each resample: the same ones for the same arguments."""
    generator, at_once = np.random.default_rng(_SEED), Packed.most(count)
    for start in range(0, rounds, at_once):
        drawn = [generator.integers(0, count, count) for _ in range(min(at_once, rounds - start))]
        yield Packed.of([np.bincount(rows, minlength=count) for rows in drawn])
