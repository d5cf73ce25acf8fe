from __future__ import annotations

import re

import pytest

from edgekd import errors
from edgekd.errors import EdgekdError, MissingDependencyError, RecipeError, UnknownNameError, nearest, require


def test_the_tree_in_the_docstring_is_the_classes():
    documented, parents = {}, {}
    for indent, name in re.findall(r"^([│ ]*[├└─ ]*)(\w+Error)\b", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4
        parents[depth] = name
        documented[name] = parents.get(depth - 1)
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, EdgekdError)]
    found = {each.__name__: each.__base__.__name__ for each in classes if each is not EdgekdError}
    assert documented == {"EdgekdError": None, **found}


def test_the_exit_codes_are_those_of_the_docstring():
    assert (EdgekdError.exit_code, errors.UsageError.exit_code, RecipeError.exit_code) == (1, 2, 2)
    assert {each.exit_code for each in EdgekdError.__subclasses__() if each is not errors.UsageError} == {1}


def test_a_message_has_what_found_allowed_and_next_as_far_as_they_are_known():
    assert str(EdgekdError("wrong", found=0, allowed="1 or 2", hint="try 1")) == (
        "wrong\n  found: 0\n  allowed: 1 or 2\n  next: try 1"
    )
    assert str(EdgekdError("wrong")) == "wrong"


def test_an_unknown_name_shows_the_nearest_and_all_or_a_few_of_many():
    few = str(UnknownNameError("colour", "rad", ["red", "blue"], where="line 3"))
    assert few == "line 3: unknown colour 'rad'\n  allowed: blue, red\n  next: did you mean 'red'?"
    many = str(UnknownNameError("number", "x", map(str, range(100, 141))))
    assert "41 names, e.g. 100, 101" in many and "did you mean" not in many
    assert "none is installed" in str(UnknownNameError("colour", "red", []))


def test_the_nearest_name_does_not_mind_capitals():
    assert nearest("RESNET18", ["resnet18", "resnet34"]) == "resnet18"
    assert nearest("vgg", ["resnet18"]) is None


def test_a_recipe_counts_its_mistakes():
    assert str(RecipeError("a.yaml", ["one"])) == "a.yaml: 1 mistake\none"
    assert str(RecipeError("a.yaml", ["one", "two"])).startswith("a.yaml: 2 mistakes\n")


def test_a_module_that_is_missing_is_reported_from_one_that_is_broken(tmp_path, monkeypatch):
    assert require("math", purpose="this", extra="train").pi > 3
    with pytest.raises(MissingDependencyError, match=r"this needs edgekd_is_not_this(?s:.)*edgekd\[train\]"):
        require("edgekd_is_not_this", purpose="this", extra="train")
    (tmp_path / "edgekd_broken.py").write_text("import edgekd_is_not_this")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="edgekd_is_not_this"):
        require("edgekd_broken", purpose="this", extra="train")
