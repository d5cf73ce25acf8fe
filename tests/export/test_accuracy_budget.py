from __future__ import annotations

import numpy as np
import pytest

from edgekd.export.accuracy_budget import AccuracyBudget, accurate
from edgekd.export.model_id import ModelId
from edgekd.runtime.statistics import packed


def _row(right: int, measure: str = "accuracy") -> dict:
    return {measure: right / 1000, "samples": 1000, "correct": packed(np.arange(1000) < right)}


ROWS = {"fp32": _row(900), "int8": _row(898), "int8-asym": _row(885)}
TEACHER = ModelId("teacher", "fp32")


def test_without_a_budget_a_certain_loss_on_the_same_images_is_too_much():
    found = accurate(ROWS, None, None)
    assert found.variants == {"fp32", "int8"} and "within the uncertainty" in found.rule


@pytest.mark.parametrize(
    ("limit", "kept"), [(0.02, {"fp32"}), (0.022, {"fp32", "int8"}), (0.035, {"fp32", "int8", "int8-asym"})]
)
def test_a_budget_bounds_the_loss_against_the_teacher(limit, kept):
    found = accurate(ROWS, AccuracyBudget(limit, TEACHER), _row(920))
    assert found.variants == kept and "teacher-fp32 (budget.accuracy_drop)" in found.rule
    assert f"at most {100 * limit:.1f} points lost" in found.rule


def test_where_none_keeps_to_the_budget_the_intervals_decide_and_it_is_said():
    found = accurate(ROWS, AccuracyBudget(0.01, TEACHER), _row(990))
    assert found.variants == {"fp32", "int8"}
    assert found.rule.endswith(
        "because no variant keeps to at most 1.0 points lost against teacher-fp32 (budget.accuracy_drop)"
    )
    assert accurate(ROWS, AccuracyBudget(0.01, TEACHER), None).rule == accurate(ROWS, None, None).rule


def test_without_labels_the_budget_is_one_of_agreement():
    rows = {"fp32": _row(1000, "agreement"), "int8": _row(985, "agreement")}
    for limit, kept in ((0.98, {"fp32", "int8"}), (0.985, {"fp32", "int8"}), (0.99, {"fp32"})):
        found = accurate(rows, AccuracyBudget(limit), None)
        assert found.variants == kept and "(budget.agreement)" in found.rule


def test_of_no_variants_none_is_accurate():
    assert accurate({}, None, None).variants == frozenset()
