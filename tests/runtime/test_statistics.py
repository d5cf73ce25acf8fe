"""Intervals against published values and by simulation; what counts as a model that has learned nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.runtime.statistics import (
    Bin,
    ClassAccuracy,
    Mistake,
    Outputs,
    expected_calibration_error,
    most_confused,
    packed,
    paired,
    reliability,
    score_of,
    unpacked,
    unpaired,
    wilson,
)


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_an_unpaired_difference_against_published_values():
    # Newcombe 1998, table II, method 10: 56 of 70 against 48 of 80, and 9 of 10 against 3 of 10.
    one = unpaired((56, 70), (48, 80))
    assert (one.low, one.high) == pytest.approx((0.0524, 0.3339), abs=5e-5) and one.certain
    two = unpaired((9, 10), (3, 10))
    assert (two.low, two.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    one = [True] * (both + first) + [False] * (second + neither)
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(one), np.array(other)


def test_a_paired_difference_by_its_formula_in_float64():
    one, other = answers(80, 9, 3, 8)
    found = paired(one, other)
    assert found.value == pytest.approx(0.06)
    phi = (80 * 8 - 9 * 3 - 50) / math.sqrt(89 * 11 * 83 * 17)
    (l1, u1), (l2, u2) = wilson(89, 100), wilson(83, 100)
    a, b, c, d = 0.89 - l1, u2 - 0.83, u1 - 0.89, 0.83 - l2
    assert found.low == pytest.approx(0.06 - math.sqrt(a * a - 2 * phi * a * b + b * b))
    assert found.high == pytest.approx(0.06 + math.sqrt(c * c - 2 * phi * c * d + d * d))


def test_without_correlation_it_is_the_unpaired_one_and_with_it_narrower():
    free = paired(*answers(25, 25, 25, 25))
    assert (free.low, free.high) == (unpaired((50, 100), (50, 100)).low, unpaired((50, 100), (50, 100)).high)
    alike = paired(*answers(85, 6, 1, 8))
    apart = unpaired((91, 100), (86, 100))
    assert apart.low < alike.low < alike.value < alike.high < apart.high


def test_equal_answers_differ_by_nothing():
    same = paired(*answers(5, 0, 0, 5))
    assert (same.value, same.low, same.high, same.certain) == (0.0, 0.0, 0.0, False)
    assert paired(*answers(0, 12, 0, 0)).certain


def test_the_interval_of_a_paired_difference_holds_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(3000):
        hard = generator.random(300) < 0.3  # images on which both fail more often
        one = generator.random(300) < np.where(hard, 0.45, 0.96)
        other = generator.random(300) < np.where(hard, 0.40, 0.94)
        found = paired(one, other)
        held += found.low <= 0.3 * 0.05 + 0.7 * 0.02 <= found.high
    assert 0.94 <= held / 3000 <= 0.975


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_answers_as_text_and_back(count):
    correct = np.random.default_rng(count).random(count) < 0.5
    assert np.array_equal(unpacked(packed(correct), count), correct)
    with pytest.raises(ValueError):
        unpacked(packed(correct), count + 8)


def outputs(scores: np.ndarray, labels: list[int], classes: str = "abc") -> Outputs:
    found = Outputs(classes)
    for start in range(0, len(labels), 4):  # in batches
        found.add(scores[start : start + 4], np.array(labels[start : start + 4]))
    return found


LABELS = [0, 1, 2] * 20


def test_a_model_that_has_learned_something_has_no_problem():
    seen = outputs(np.eye(3)[LABELS], LABELS)
    assert seen.problems() == [] and seen.correct.all() and seen.balanced_accuracy == 1.0
    assert seen.majority == ("a", pytest.approx(1 / 3))


def test_the_signs_of_one_that_has_not():
    constant = np.tile([0.1, 0.7, 0.2], (60, 1))
    assert outputs(constant, LABELS).problems() == ["the same output for every image"]
    noisy = constant + np.random.default_rng(0).random((60, 3)) * 0.1
    assert outputs(noisy, LABELS).problems() == ["one class, b, for every image"]
    chance = np.eye(3)[np.random.default_rng(0).permutation(LABELS)]
    (problem,) = outputs(chance, LABELS).problems()
    assert "than that of always answering a, the most frequent class: 33.3%" in problem
    wrong = np.eye(3)[[(label + 1) % 3 for label in LABELS]]
    assert "its accuracy, 0.0%, is worse than" in outputs(wrong, LABELS).problems()[0]
    skewed = [0] * 54 + [1, 2] * 3
    slightly = np.eye(3)[[0] * 54 + [1, 0] * 3]
    assert "not certainly better than that of always answering a" in outputs(slightly, skewed).problems()[0]


def test_outputs_that_are_no_numbers_are_wrong():
    scores = np.eye(3)[LABELS]
    scores[5, 0] = np.nan
    scores[6, 1] = np.inf
    seen = outputs(scores, LABELS)
    assert seen.problems() == ["NaN or infinite outputs for 2 of 60 images"] and seen.correct.sum() == 58
    assert outputs(np.full((60, 3), np.nan), LABELS).problems()[0] == "NaN or infinite outputs for 60 of 60 images"


def test_one_class_of_images_says_nothing_about_the_answers():
    assert outputs(np.eye(3)[[0] * 8] + np.arange(8)[:, None] * 0.01, [0] * 8).problems() == []


def test_the_most_frequent_confusions_come_first():
    confusion = np.array([[9, 1, 0], [4, 5, 2], [0, 0, 7]])
    assert most_confused(confusion, "abc", most=2) == [("b", "a", 4), ("b", "c", 2)]
    assert most_confused(np.eye(3, dtype=np.int64), "abc") == []


def test_the_accuracy_of_each_class_that_has_images():
    seen = outputs(np.eye(3)[[0, 1, 1, 1]], [0, 0, 0, 1])
    assert seen.per_class() == {
        "a": ClassAccuracy(1 / 3, wilson(1, 3), 3),
        "b": ClassAccuracy(1.0, wilson(1, 1), 1),
    }


def test_calibration_by_hand():
    # Confidences 0.9 (right), 0.9 (wrong), 0.5 (right) and 0.4 (right).
    shares = np.array([[0.9, 0.05, 0.05], [0.9, 0.06, 0.04], [0.3, 0.5, 0.2], [0.3, 0.3, 0.4]])
    found = outputs(np.log(shares) + 7.0, [0, 1, 1, 2]).calibration()
    assert found is not None and (found.samples, found.accuracy) == (4, 0.75)
    assert found.confidence == pytest.approx((0.9 + 0.9 + 0.5 + 0.4) / 4)
    assert found.nll == pytest.approx(-(math.log(0.9) + math.log(0.06) + math.log(0.5) + math.log(0.4)) / 4)
    assert found.ece == pytest.approx((2 * 0.4 + 0.5 + 0.6) / 4)
    filled = {number: each for number, each in enumerate(found.bins) if each.count}
    assert {number: each.count for number, each in filled.items()} == {5: 1, 7: 1, 13: 2}
    assert (filled[13].confidence, filled[13].accuracy) == (pytest.approx(0.9), 0.5)
    assert found.bins[0] == Bin(0, None, None)


def test_calibration_against_its_definition_image_by_image():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(0, 3, (400, 3)), generator.integers(0, 3, 400)
    found = outputs(logits, labels.tolist()).calibration()
    shares = [[math.exp(value) / sum(map(math.exp, row)) for value in row] for row in logits.tolist()]
    answers = [(max(row), row.index(max(row)) == label) for row, label in zip(shares, labels.tolist(), strict=True)]
    ece = 0.0
    for number in range(15):
        inside = [each for each in answers if number / 15 < each[0] <= (number + 1) / 15]
        if inside:
            ece += abs(sum(right for _, right in inside) - sum(confidence for confidence, _ in inside)) / 400
        assert found.bins[number].count == len(inside)
    assert found.ece == pytest.approx(ece, rel=1e-12)
    likelihood = sum(math.log(row[label]) for row, label in zip(shares, labels.tolist(), strict=True))
    assert found.nll == pytest.approx(-likelihood / 400, rel=1e-12)


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one():
    found = reliability(np.array([0.5, 1.0, 0.25, 0.0]), np.array([True, True, False, False]), 4)
    assert [each.count for each in found] == [2, 1, 0, 1]
    assert expected_calibration_error(found) == pytest.approx((0.25 + 0.5 + 0.0) / 4)


def test_answers_as_often_right_as_they_are_probable_are_calibrated_and_more_certain_ones_are_not():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (40_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (generator.random((40_000, 1)) > shares.cumsum(1)).sum(1)
    calibrated, certain = Outputs("abc"), Outputs("abc")
    calibrated.add(logits, labels)
    certain.add(4 * logits, labels)
    assert calibrated.calibration().ece < 0.012 and certain.calibration().ece > 0.15
    assert calibrated.calibration().nll < certain.calibration().nll


def test_logits_far_apart_have_a_finite_likelihood():
    found = outputs(np.array([[1e5, 0.0, 0.0]], dtype=np.float32), [1]).calibration()
    assert (found.nll, found.ece, found.confidence) == (1e5, 1.0, 1.0)


def test_the_worst_mistakes_are_the_most_probable_wrong_answers():
    shares = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.98, 0.01, 0.01], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])
    seen = outputs(np.log(shares), [1, 0, 0, 2, 0])
    rows = [(each.row, each.label, each.answer) for each in seen.worst()]
    assert rows == [(1, "a", "b"), (4, "a", "c"), (0, "b", "a")]
    assert [each.probability for each in seen.worst(most=2)] == pytest.approx([0.8, 0.8])
    assert outputs(np.eye(3)[LABELS], LABELS).worst() == [] == Outputs("abc").worst()


def test_outputs_that_are_no_numbers_have_no_confidence():
    scores = np.eye(3)[[1, 1, 2, 0]]
    scores[0, 2] = np.nan
    seen = outputs(scores, [0, 0, 2, 0])
    assert seen.calibration().samples == 3
    assert seen.worst() == [Mistake(1, "a", "b", pytest.approx(math.e / (math.e + 2)))]
    assert outputs(np.full((4, 3), np.nan), [0, 1, 2, 0]).calibration() is None and Outputs("abc").calibration() is None


def test_answers_of_a_network_may_mostly_be_one_class_but_a_constant_output_is_still_named():
    """Photos of one kind: agreement is judged on its own, not against the share of the most frequent answer."""
    labels = np.array([0] * 38 + [1] * 2)
    logits = np.eye(2)[labels]
    logits[:2] = logits[:2, ::-1]
    seen, constant = Outputs(["cat", "dog"]), Outputs(["cat", "dog"])
    seen.add(logits, labels)
    constant.add(np.tile([1.0, 0.0], (40, 1)), labels)
    assert seen.problems() and not seen.problems(of_network=True)
    assert constant.problems(of_network=True) == ["the same output for every image"]
    assert (score_of({"agreement": 0.5}), score_of({"accuracy": 0.25})) == (0.5, 0.25)
