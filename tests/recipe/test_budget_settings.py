from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.recipe.budget_settings import BudgetSettings


def test_any_bound_is_enough_and_only_those_that_are_set_count() -> None:
    assert BudgetSettings(size_mb=4).limits == {"size_mb": 4.0}
    assert list(BudgetSettings(size_mb=4, latency_ms=5, accuracy_drop=0.0).limits) == [
        "latency_ms",
        "accuracy_drop",
        "size_mb",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "needs at least one of latency_ms, accuracy_drop, agreement, size_mb"),
        ({"size_mb": 0}, "greater than 0"),
        ({"latency_ms": -1}, "greater than 0"),
        ({"accuracy_drop": 1}, "less than 1"),  # a point is 0.01
        ({"accuracy_drop": -0.1}, "greater than or equal to 0"),
        ({"agreement": 98}, "less than or equal to 1"),
        ({"size_mb": "4"}, "valid number"),
    ],
)
def test_no_bound_or_one_that_means_nothing_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BudgetSettings.model_validate(wrong)
