"""Types of values in a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from edgekd import plugins
from edgekd.recipe.base import ClassNames, ClassWeights, FilePath, ImageSize, Layers, Name
from edgekd.recipe.settings import RecipeSettings


def test_a_size_is_a_side_or_a_height_and_a_width() -> None:
    size: TypeAdapter[Any] = TypeAdapter(ImageSize)
    assert size.validate_python(32) == (32, 32)
    assert size.validate_json("[96, 160]") == (96, 160)
    for wrong in (7, 1025, True, "32", 32.0, [32], [32, 32, 3], [32, "32"], [32, 7], None, {"height": 32}):
        with pytest.raises(ValidationError, match=r"from 8 to 1024, or two: \[height, width\]; found: "):
            size.validate_python(wrong)


def test_class_weights_are_auto_or_numbers_that_a_loss_can_be_weighted_by() -> None:
    weights: TypeAdapter[Any] = TypeAdapter(ClassWeights)
    assert [weights.validate_python(value) for value in ("auto", None, [1, 2.5])] == ["auto", None, (1.0, 2.5)]
    for wrong in (
        7,
        "balanced",
        [],
        [0.0, 1.0],
        [1.0, "a"],
        [True, 1.0],
        [float("inf")],
        [1.0, 1e308],
        [1.0, 1e-30],
        [float("nan")],
    ):
        with pytest.raises(
            ValidationError, match=r"auto, or a list of numbers from 1e-09 to 1e\+09, one for each class"
        ):
            weights.validate_python(wrong)


@pytest.mark.parametrize("wrong", ["", " ", "\t\n"])
def test_an_empty_path_or_name_is_refused(wrong: str) -> None:
    for kind, value in ((FilePath, wrong), (Name, wrong), (ClassNames, wrong), (Layers, wrong), (Layers, ["a", wrong])):
        with pytest.raises(ValidationError, match="must not be empty: .* or remove the key; found: "):
            TypeAdapter(kind).validate_python(value)
    with pytest.raises(ValidationError, match="must be a list of two names or more"):
        TypeAdapter(ClassNames).validate_python(["a", wrong])
    assert TypeAdapter(FilePath, config={"strict": True}).validate_json('"."') == Path()
    assert TypeAdapter(Name).validate_python(" a ") == " a "


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _paths(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[type[BaseModel], str]]:
    """Every field of settings, at any depth, that may be a path."""
    seen.add(model)
    for name, field in model.model_fields.items():
        kinds = list(_kinds(field.annotation))
        if Path in kinds:
            yield model, name
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
                yield from _paths(kind, seen)


def test_no_path_of_a_recipe_may_be_empty() -> None:
    """An empty one would be the current folder."""
    seen: set[type[BaseModel]] = set()
    models = [RecipeSettings, *(scheme.parameters for scheme in plugins.load_all("scheme").values())]
    found = [path for model in models for path in _paths(model, seen)]
    assert {name for _, name in found} == {"root", "checkpoint", "unlabelled"}
    for model, name in found:
        with pytest.raises(ValidationError) as refused:
            model.model_validate_json(f'{{"{name}": ""}}')
        problems = [each["msg"] for each in refused.value.errors() if name in each["loc"]]
        assert any("must not be empty" in problem for problem in problems), (model, name)
