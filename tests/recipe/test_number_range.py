"""A number that the networks' single precision cannot hold is refused with its line, wherever in a recipe it stands."""

from __future__ import annotations

import pytest
import yaml

from edgekd.errors import RecipeError
from edgekd.recipe.load import from_mapping
from edgekd.recipe.number_range import beyond_float32

GOOD = """\
name: shoes
data: {source: digits, image_size: 32}
teacher: {model: cifar/resnet20, train: {epochs: 2}}
student: {model: cifar/resnet8}
distill: {objective: [{method: kd, temperature: 4}]}
"""


def test_what_float32_holds_passes():
    good = {"a": [0, 0.0, -0.0, 1, -3.4e38, 3.4e38, 1.2e-38, 2**60, True, "1e308"], "b": None}
    assert list(beyond_float32(good)) == []


def test_every_other_number_is_named_with_its_place():
    wrong = {"a": [1, 1e39], "b": {"c": -1e-39}, "d": 10**400}
    found = dict(beyond_float32(wrong))
    assert list(found) == [("a", 1), ("b", "c"), ("d",)]
    assert found["a", 1].endswith("0, or 1.2e-38 to 3.4e+38 in size; found: 1e+39")
    assert found["d",].endswith("found: a number of 401 digits")


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("distill.learning_rate=1.0e+39", "distill.learning_rate"),
        ("distill.objective.0.temperature=1.0e-39", r"distill.objective\[0\].temperature"),
        ("distill.objective.0.weight=1.0e+308", r"distill.objective\[0\].weight"),
        ("distill.scheme={name: hybrid, limit: 1.0e+60}", "distill.scheme.limit"),
        ("teacher.train.class_weights=[1.0e+308, 1]", r"teacher.train.class_weights\[0\]"),
        ("teacher.input={mean: [0, 0, 0], std: [1.0e-60, 1, 1]}", r"teacher.input.std\[0\]"),
        ("data.std=[1, 1.0e+39, 1]", r"data.std\[1\]"),
        ("data.augment.scale=[1.0e-50, 1]", r"data.augment.scale\[0\]"),
        ("student.arguments={width: 1.0e+39}", "student.arguments.width"),
        ("bench.seconds=1.0e+60", "bench.seconds"),
    ],
)
def test_it_is_one_mistake_of_the_recipe(override, place):
    with pytest.raises(RecipeError, match=rf"--set .* {place}: must be a number that float32 holds: 0, or") as refused:
        from_mapping(yaml.safe_load(GOOD), [override])
    assert len(refused.value.problems) == 1


def test_other_mistakes_are_reported_beside_it():
    with pytest.raises(RecipeError) as refused:
        from_mapping(yaml.safe_load(GOOD), ["distill.learning_rate=1.0e+39", "distill.epochs=0"])
    assert len(refused.value.problems) == 2
