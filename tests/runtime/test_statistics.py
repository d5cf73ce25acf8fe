"""Intervals against published values and by simulation; what counts as a model that has learned nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.runtime.statistics import Outputs, most_confused, packed, paired, unpacked, unpaired, wilson


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
