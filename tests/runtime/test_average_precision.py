"""Average precision, its resamples and what they say."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.runtime import average_precision
from edgekd.runtime.average_precision import (
    Packed,
    average_precisions,
    interval,
    mean_average_precision,
    mean_of,
    paired,
    resampled,
    resamples_for,
)

sklearn = pytest.importorskip("sklearn.metrics", reason="the device side is tested without scikit-learn too")


def problem(seed: int, count: int = 60, classes: int = 4, *, ties: bool = False):
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, classes)) < [0.5, 0.2, 0.05, 0.3][:classes]).astype(np.int64)
    labels[0] = 1
    logits = generator.normal(size=(count, classes)) + 1.5 * labels
    return (np.round(logits) if ties else logits), labels


def test_average_precision_by_hand() -> None:
    # In order: right, wrong, right, right: 1/3 (1 + 2/3 + 3/4).
    scores, labels = np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[1], [0], [1], [1]])
    assert average_precisions(scores, labels) == pytest.approx([(1 + 2 / 3 + 3 / 4) / 3])
    # All at once: the precision is the share.
    assert average_precisions(np.zeros((4, 1)), labels) == pytest.approx([3 / 4])
    assert average_precisions(np.array([[np.nan], [3.0], [2.0], [1.0]]), labels) == pytest.approx(
        [(1 / 2 + 2 / 3 + 3 / 4) / 3]
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_scikit_learn(seed: int, ties: bool) -> None:
    logits, labels = problem(seed, ties=ties)
    expected = [sklearn.average_precision_score(labels[:, c], logits[:, c]) for c in range(4)]
    assert average_precisions(logits, labels) == pytest.approx(expected)
    assert mean_average_precision(logits, labels) == pytest.approx(np.mean(expected))


def test_classes_without_images_are_left_out() -> None:
    logits, labels = problem(1)
    labels[:, 2] = 0
    each = average_precisions(logits, labels)
    assert np.isnan(each[2]) and mean_average_precision(logits, labels) == pytest.approx(each[[0, 1, 3]].mean())
    assert mean_average_precision(logits, np.zeros_like(labels)) == 0.0


@pytest.mark.parametrize("ties", [False, True])
def test_a_resample_is_the_same_as_its_images_written_out(ties: bool) -> None:
    logits, labels = problem(2, ties=ties)
    generator = np.random.default_rng(0)
    for found in resampled(logits, labels, rounds=21):
        rows = generator.integers(0, len(logits), len(logits))
        for c in range(4):
            there = labels[rows, c].any()
            expected = sklearn.average_precision_score(labels[rows, c], logits[rows, c]) if there else np.nan
            assert found[c] == pytest.approx(expected, nan_ok=True)


def test_the_interval_covers_and_differences_are_narrower() -> None:
    """Of another 200 sets of images, the interval of one covers the mean of all; paired differences vary less."""
    truth = np.mean([mean_average_precision(*problem(seed, 300)) for seed in range(100, 300)])
    logits, labels = problem(3, 300)
    low, high = interval(one := mean_of(resampled(logits, labels)))
    assert low < truth < high and low < mean_average_precision(logits, labels) < high
    other = mean_of(resampled(logits + 0.1 * np.random.default_rng(9).normal(size=logits.shape), labels))
    gap = paired(0.0, one, other)
    assert gap.high - gap.low < 0.5 * (high - low) and not gap.certain
    assert paired(0.0, one, one) == paired(0.0, [0.5], [0.5])
    worse = mean_of(resampled(np.random.default_rng(5).normal(size=logits.shape), labels))
    assert paired(0.3, one, worse).certain


def test_parts_of_the_classes_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = problem(11, 50)
    whole = resampled(logits, labels, rounds=3)
    monkeypatch.setattr(average_precision, "_HELD", 1)
    np.testing.assert_array_equal(resampled(logits, labels, rounds=3), whole)


def test_classes_without_images_have_no_resamples() -> None:
    logits, labels = problem(12)
    labels[:, 3] = 0
    found = resampled(logits, labels, rounds=4)
    assert np.isnan(found[:, 3]).all() and not np.isnan(found[:, 0]).any()
    assert mean_of(found) == pytest.approx(np.nanmean(found, axis=1))
    assert np.isnan(resampled(logits, np.zeros_like(labels), rounds=2)).all()


def test_large_sets_get_fewer_resamples() -> None:
    assert [resamples_for(*size) for size in ((200, 4), (18_750, 80), (40_000, 80), (10**6, 500))] == [
        1000,
        1000,
        468,
        400,
    ]


def test_the_monte_carlo_error_that_is_stated() -> None:
    """Of the ends of a 95 % interval from 400 resamples of a normal figure, relative to half its width."""
    draws = np.random.default_rng(0).normal(size=(4000, 400))
    low = np.percentile(draws, 2.5, axis=1)
    assert low.std() / 1.96 == pytest.approx(0.07, abs=0.01)
    assert np.sqrt(0.025 * 0.975 / 400) / (0.0584 * 1.96) == pytest.approx(0.07, abs=0.005)


def test_packed_counts_are_added_up_lane_by_lane_up_to_their_largest_sum() -> None:
    for images in (1, 2, 7, 8, 255, 256):
        generator, lanes = np.random.default_rng(images), Packed.most(images)
        counts = [np.bincount(generator.integers(0, images, images), minlength=images) for _ in range(lanes)]
        packed = Packed.of(counts)
        sums = np.add.reduceat(packed.counts, np.array([0, images // 2]))
        for lane, each in zip(packed.unpacked(sums), counts, strict=True):
            assert lane.tolist() == np.add.reduceat(each, np.array([0, images // 2])).tolist()
        assert [int(each[0]) for each in packed.unpacked(packed.counts.sum(keepdims=True))] == [images] * lanes
