from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import RecipeError
from edgekd.recipe.load import from_mapping

RECIPE: dict[str, Any] = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
    "budget": {"latency_ms": 5, "accuracy_drop": 0.01, "size_mb": 4},
}
GIVEN: dict[str, Any] = {
    "teacher": None,
    "student": {"model": "cifar/resnet8", "checkpoint": "x.pt"},
    "distill": {"scheme": "none"},
}
UNLABELLED: dict[str, Any] = {**GIVEN, "data": {"source": "unlabelled", "root": "photos", "image_size": 16}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bench": {"batch_sizes": [8]}}, r"budget.latency_ms: is that of one image(?s:.)*\[8\]: add 1"),
        (
            {"bench": {"devices": ["jetson-nano-4gb"]}},
            r"budget.latency_ms: (?s:.)*\[jetson-nano-4gb\]: add this-machine",
        ),
        (GIVEN, "budget.accuracy_drop: has nothing to compare with"),
        ({**UNLABELLED, "quantize": {"mode": "ptq"}}, "budget.accuracy_drop: needs labels(?s:.)*set agreement"),
        ({"budget": {"size_mb": 1, "variant": "int8"}}, "budget.variant: int8 is not exported(?s:.)*are fp32, fp16"),
        ({**GIVEN, "budget": {"accuracy_drop": 0.1, "variant": "fp32"}}, "budget.accuracy_drop: has nothing"),
        ({"budget": {"agreement": 0.99}}, "budget.agreement: is measured for images without labels"),
    ],
)
def test_what_the_run_would_not_measure_is_refused_with_its_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe:\d+ {message}"):
        from_mapping({**RECIPE, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bench": {"devices": ["jetson-nano-4gb", "this-machine"], "batch_sizes": [8, 1]}},
        {**GIVEN, "quantize": {"mode": "ptq"}},
        {**GIVEN, "budget": {"accuracy_drop": 0.1, "variant": "fp16"}},
        {**GIVEN, "quantize": {"mode": "ptq"}, "budget": {"size_mb": 1, "variant": "int8"}},
        {**UNLABELLED, "quantize": {"mode": "ptq"}, "budget": {"agreement": 0.99, "size_mb": 4}},
        {"bench": {"devices": ["jetson-nano-4gb"]}, "budget": {"size_mb": 4}},
    ],
)
def test_what_it_measures_is_taken(changes: dict[str, Any]) -> None:
    assert from_mapping({**RECIPE, **changes}).settings.budget is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"source": "digit"}},
        {"bench": {"devices": ["jetson-nano-5gb"]}},
        {"budget": {"size_mb": 1, "variant": "fp61"}},
    ],
)
def test_an_unknown_name_is_the_only_mistake(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as raised:
        from_mapping({**RECIPE, **changes})
    assert len(raised.value.problems) == 1 and "did you mean" in raised.value.problems[0]
