"""Types of values in a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from edgekd.recipe.base import ClassWeights, ImageSize


def test_a_size_is_a_side_or_a_height_and_a_width() -> None:
    size: TypeAdapter[Any] = TypeAdapter(ImageSize)
    assert size.validate_python(32) == (32, 32)
    assert size.validate_json("[96, 160]") == (96, 160)
    for wrong in (7, 1025, True, "32", 32.0, [32], [32, 32, 3], [32, "32"], [32, 7], None, {"height": 32}):
        with pytest.raises(ValidationError, match=r"from 8 to 1024, or two: \[height, width\]; found: "):
            size.validate_python(wrong)


def test_class_weights_are_auto_or_numbers_above_zero() -> None:
    weights: TypeAdapter[Any] = TypeAdapter(ClassWeights)
    assert [weights.validate_python(value) for value in ("auto", None, [1, 2.5])] == ["auto", None, (1.0, 2.5)]
    for wrong in (7, "balanced", [], [0.0, 1.0], [1.0, "a"], [True, 1.0], [float("inf")]):
        with pytest.raises(ValidationError, match="must be auto, or a list of numbers above 0, one for each class"):
            weights.validate_python(wrong)
