from __future__ import annotations

import pytest

from edgekd.errors import RecipeError, UsageError
from edgekd.recipe.yaml_lines import format_location, parse, set_value

TEXT = """\
name: shoes
distill:
  learning_rate: 1e-1
  objective:
    - {method: kd}
    - method: mse
"""


def test_numbers_and_truth_values_are_those_of_yaml_1_2():
    values = parse("{a: 1e-3, b: .5, c: yes, d: true, e: 2024-01-02, f: on}", name="x").value
    assert values == {"a": 0.001, "b": 0.5, "c": "yes", "d": True, "e": "2024-01-02", "f": "on"}
    assert parse("{a: 1_0, b: 1:30, c: 010, d: 10}", name="x").value == {"a": "1_0", "b": "1:30", "c": "010", "d": 10}


def test_every_place_has_its_line_or_the_nearest_around_it():
    document = parse(TEXT, name="r.yaml")
    assert document.where(("distill", "learning_rate")) == "r.yaml:3"
    assert document.where(("distill", "objective", 1, "method")) == "r.yaml:6"
    assert document.where(("distill", "objective", 0, "weight")) == "r.yaml:5"
    assert document.where(("teacher",)) == "r.yaml:1"


def test_a_key_that_stands_twice_is_a_problem_with_both_lines():
    document = parse("a: {x: 1}\na: 2\n", name="r.yaml")
    assert document.problems == ["r.yaml:2 a: repeated key (first in line 1)"]


def test_an_override_is_set_and_remembered():
    document = parse(TEXT, name="r.yaml")
    set_value(document, "distill.objective.1.method=dkd")
    set_value(document, "student.model=a/b")
    assert document.value["distill"]["objective"][1] == {"method": "dkd"}
    assert document.value["student"] == {"model": "a/b"}
    assert document.where(("student", "model")) == "--set student.model=a/b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name", "no key=value"),
        ("=3", "no key=value"),
        ("name=[1", "not valid YAML"),
        ("name.first=1", "name has no item 'first'"),
        ("name.first.second=1", "name.first is not a section"),
        ("distill.objective.7=1", "distill.objective has no item 7"),
        ("teacher.layers.0=1", "set the whole list: --set 'teacher.layers="),
    ],
)
def test_an_override_without_a_place_is_refused(override, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        set_value(parse(TEXT, name="r.yaml"), override)


def test_what_is_not_yaml_has_the_line():
    with pytest.raises(RecipeError, match="r.yaml:2: not valid YAML"):
        parse("a: 1\nb: [1}\n", name="r.yaml")


def test_locations_are_written_as_in_a_recipes_messages():
    assert format_location(("distill", "objective", 0, "method")) == "distill.objective[0].method"


def test_a_section_that_an_override_began_is_reported_as_that_override():
    document = parse("name: x\n", name="r.yaml")
    set_value(document, "a.b.c=1")
    assert document.where(("a",)) == document.where(("a", "b", "c")) == "--set a.b.c=1"
    assert document.where(("name",)) == "r.yaml:1"
