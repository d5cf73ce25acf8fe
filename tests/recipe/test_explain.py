"""Mistakes in a recipe's values, in the words that its writer knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgekd.recipe.explain import explain
from edgekd.recipe.settings import RecipeSettings

GOOD = {
    "name": "shoes",
    "data": {"source": "digits"},
    "teacher": {"model": "cifar/resnet20", "train": {"epochs": 2}},
    "student": {"model": "cifar/resnet8"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "must be a string; found: 3"),
        ({"name": "x" * 101}, f'must have at most 100 characters; found: "{"x" * 101}"'),
        ({"name": "a/é"}, 'must match ^[A-Za-z0-9][A-Za-z0-9._-]*$; found: "a/é"'),
        ({"distill": None}, "must be a mapping; found: null"),
        ({"distill": []}, "must be a mapping; found: a list"),
        ({"distill": {"epochs": "9" * 400}}, f'must be a whole number; found: "{"9" * 199}… (402 characters)'),
        ({"distill": {"epochs": 1.5}}, "must be a whole number; found: 1.5"),
        ({"distill": {"epochs": {}}}, "must be a whole number; found: a mapping"),
        ({"distill": {"learning_rate": "fast"}}, 'must be a number; found: "fast"'),
        ({"distill": {"learning_rate": -1}}, "must be above 0; found: -1"),
        ({"distill": {"baseline": "yes"}}, 'must be true or false; found: "yes"'),
        ({"distill": {"objective": []}}, "needs at least 1, has 0"),
        ({"distill": {"objective": {}}}, "must be a list; found: a mapping"),
        ({"distill": {"objective": [[]]}}, "must be a mapping; found: a list"),
        ({"bench": {"batch_sizes": [None]}}, "must be a whole number; found: null"),
        ({"student": {}}, "is missing"),
        ({"quantize": {"mode": "qat"}}, "must be 'qad' or 'ptq'; found: \"qat\"; did you mean 'qad'?"),
        ({"quantize": {"calibration_images": 1}}, "must be at least 16; found: 1"),
    ],
)
def test_a_mistake_states_what_is_allowed_and_what_was_found(change, message):
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate_json(json.dumps(GOOD | change))
    problem = caught.value.errors()[0]  # the others follow from it
    assert explain(problem) == message


def test_what_was_found_may_be_a_value_that_json_lacks() -> None:
    problem = {"type": "path_type", "msg": "Input is not a valid path", "input": Path("a"), "loc": ()}
    assert explain(problem) == 'Input is not a valid path; found: "a"'  # type: ignore[arg-type]
