"""F1, thresholds, classes and mistakes of images with any number of classes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.runtime.average_precision import average_precisions, interval, mean_average_precision, resampled
from edgekd.runtime.label_calibration import sigmoid
from edgekd.runtime.multilabel import MultilabelOutputs, WrongLabel, best_thresholds, f1

sklearn = pytest.importorskip("sklearn.metrics", reason="the device side is tested without scikit-learn too")


def problem(seed: int, count: int = 60, classes: int = 4, *, ties: bool = False):
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, classes)) < [0.5, 0.2, 0.05, 0.3][:classes]).astype(np.int64)
    labels[0] = 1
    logits = generator.normal(size=(count, classes)) + 1.5 * labels
    return (np.round(logits) if ties else logits), labels


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


def outputs(logits, labels) -> MultilabelOutputs:
    seen = MultilabelOutputs(["a", "b", "c", "d"])
    for start in range(0, len(logits), 25):
        seen.add(logits[start : start + 25], labels[start : start + 25])
    return seen


def test_the_summary_of_a_model_that_learned() -> None:
    logits, labels = problem(7, 200)
    labels[:, 1] = 0
    found = outputs(logits, labels).summary([0.5] * 4)
    assert found.mAP == pytest.approx(mean_average_precision(logits, labels)) and found.problems == ()
    assert list(found.per_class) == ["a", "c", "d"] and found.unmeasured == ("b",)
    assert found.chance == pytest.approx(labels[:, [0, 2, 3]].mean()) and len(found.replicates) == 1000


def test_each_class_has_its_interval_and_calibration() -> None:
    logits, labels = problem(7, 200)
    each, resamples = average_precisions(logits, labels), resampled(logits, labels)
    for number, (name, found) in enumerate(outputs(logits, labels).summary([0.5] * 4).per_class.items()):
        assert name == "abcd"[number] and found.average_precision == pytest.approx(each[number])
        assert found.interval == interval(resamples[:, number]) and found.samples == labels[:, number].sum()
        assert found.interval[0] < found.average_precision < found.interval[1]
        scores = sigmoid(logits[:, number].astype(np.float64))
        assert found.probability == pytest.approx(scores.mean(), rel=1e-5)
        bins = np.clip(np.ceil(scores * 15), 1, 15)
        gaps = [abs((scores - labels[:, number])[bins == b].sum()) for b in range(1, 16)]
        assert found.ece == pytest.approx(sum(gaps) / 200, abs=1e-6)


def test_the_images_with_the_most_confident_wrong_labels() -> None:
    scores = np.array([[0.9, 0.1, 0.6, 0.2], [0.8, 0.95, 0.3, 0.1], [0.1, 0.2, 0.3, 0.7], [np.nan, 0.9, 0.9, 0.9]])
    labels = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    # a and c need 0.5; b 0.05, so that it is given to all; d 0.5.
    worst = outputs(np.log(scores / (1 - scores)), labels).worst([0.5, 0.05, 0.5, 0.5])
    # 0: b given at 0.1, c given at 0.6, d missed at 0.2, sure of it by 0.8. 1: a given at 0.8, c missed, sure by 0.7.
    assert [each.row for each in worst] == [0, 1, 2]
    assert [(each.label, each.given) for each in worst[0].wrong] == [("d", False), ("c", True), ("b", True)]
    assert [(each.label, each.given) for each in worst[1].wrong] == [("a", True), ("c", False)]
    assert worst[2].wrong == (WrongLabel("b", True, pytest.approx(0.2)),)
    assert len(outputs(np.log(scores / (1 - scores)), labels).worst([0.5, 0.05, 0.5, 0.5], most=1)) == 1
    right = outputs(np.where(labels, 4.0, -4.0), labels)
    assert right.worst([0.5] * 4) == []


def test_outputs_that_are_all_broken_have_no_calibration() -> None:
    logits, labels = problem(7, 30)
    found = outputs(np.full_like(logits, np.nan), labels).summary([0.5] * 4)
    assert found.calibration is None and found.worst == ()
    assert {(each.probability, each.ece) for each in found.per_class.values()} == {(None, None)}


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
    (found,) = outputs(change(logits), labels).summary([0.5] * 4).problems
    assert message in found
