"""mAP, F1 and thresholds of images with any number of classes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.runtime.multilabel import (
    MultilabelOutputs,
    average_precisions,
    best_thresholds,
    f1,
    interval,
    mean_average_precision,
    paired,
    resampled,
    sigmoid,
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
    for value in resampled(logits, labels, rounds=20):
        rows = generator.integers(0, len(logits), len(logits))
        each = [
            sklearn.average_precision_score(labels[rows, c], logits[rows, c]) for c in range(4) if labels[rows, c].any()
        ]
        assert value == pytest.approx(np.mean(each))


def test_the_interval_covers_and_differences_are_narrower() -> None:
    """Of another 200 sets of images, the interval of one covers the mean of all; paired differences vary less."""
    truth = np.mean([mean_average_precision(*problem(seed, 300)) for seed in range(100, 300)])
    logits, labels = problem(3, 300)
    low, high = interval(one := resampled(logits, labels))
    assert low < truth < high and low < mean_average_precision(logits, labels) < high
    other = resampled(logits + 0.1 * np.random.default_rng(9).normal(size=logits.shape), labels)
    gap = paired(0.0, one, other)
    assert gap.high - gap.low < 0.5 * (high - low) and not gap.certain
    assert paired(0.0, one, one) == paired(0.0, [0.5], [0.5])
    worse = resampled(np.random.default_rng(5).normal(size=logits.shape), labels)
    assert paired(0.3, one, worse).certain


def test_the_threshold_with_the_highest_f1_is_between_two_scores() -> None:
    scores = np.array([[0.9], [0.8], [0.6], [0.2]], dtype=np.float32)
    assert best_thresholds(scores, np.array([[1], [1], [0], [0]])) == pytest.approx([0.7])
    assert best_thresholds(scores, np.array([[1], [0], [1], [0]])) == pytest.approx([0.4])
    assert best_thresholds(scores, np.array([[1], [1], [1], [1]])) == pytest.approx([0.1])
    assert best_thresholds(scores, np.zeros((4, 1), np.int64)) == [0.5]
    logits, labels = problem(4)
    scores, chosen = sigmoid(logits), best_thresholds(sigmoid(logits), labels)
    for c in range(4):
        reached = sklearn.f1_score(labels[:, c], scores[:, c] >= chosen[c])
        tried = [sklearn.f1_score(labels[:, c], scores[:, c] >= t) for t in scores[:, c]]
        assert reached == pytest.approx(max(tried))


def test_f1_is_that_of_scikit_learn() -> None:
    logits, labels = problem(6)
    scores, thresholds = sigmoid(logits), [0.5, 0.4, 0.6, 0.7]
    answers = (scores >= np.array(thresholds)).astype(int)
    micro, macro = f1(scores, labels, thresholds)
    assert micro == pytest.approx(sklearn.f1_score(labels, answers, average="micro"))
    assert macro == pytest.approx(sklearn.f1_score(labels, answers, average="macro"))
    assert f1(scores, np.zeros_like(labels), thresholds) == (0.0, 0.0)


def test_sigmoid_without_overflow() -> None:
    found = sigmoid(np.array([-1e4, -1.0, 0.0, 1.0, 1e4], dtype=np.float32))
    assert found == pytest.approx([0.0, 0.2689414, 0.5, 0.7310586, 1.0]) and found.dtype == np.float32


def outputs(logits, labels) -> MultilabelOutputs:
    seen = MultilabelOutputs(["a", "b", "c", "d"])
    for start in range(0, len(logits), 25):
        seen.add(logits[start : start + 25], labels[start : start + 25])
    return seen


def test_the_summary_of_a_model_that_learned() -> None:
    logits, labels = problem(7, 200)
    labels[:, 1] = 0
    found = outputs(logits, labels).summary([0.5] * 4)
    assert found["mAP"] == pytest.approx(mean_average_precision(logits, labels)) and found["problems"] == []
    assert list(found["average_precisions"]) == ["a", "c", "d"] and found["unmeasured"] == ["b"]
    assert found["chance"] == pytest.approx(labels[:, [0, 2, 3]].mean()) and len(found["replicates"]) == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: np.full_like(logits, 2.0), "the same output for every image"),
        (
            lambda logits: np.random.default_rng(1).normal(size=logits.shape),
            "not certainly better than that of a random",
        ),
        (lambda logits: -logits, "not certainly better"),
        (
            lambda logits: np.where(np.arange(len(logits))[:, None] == 3, np.nan, logits),
            "NaN or infinite outputs for 1 of",
        ),
    ],
)
def test_models_that_learned_nothing(change, message: str) -> None:
    logits, labels = problem(8, 100)
    (found,) = outputs(change(logits), labels).summary([0.5] * 4)["problems"]
    assert message in found
