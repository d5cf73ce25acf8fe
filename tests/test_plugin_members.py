"""The check of values against annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import pytest

from edgekd.plugin_members import fits, in_words, lacking, members, misspelt, refused_call, wrong_member


class Open(Protocol):
    def __call__(self, path: str) -> int: ...


class Samples(Protocol):
    labels: int

    def image(self) -> str: ...


class Both:
    labels = 1

    def image(self) -> str:
        return ""


class NoFunction:
    labels = image = 1


FITS = [
    (str, "x", 3, "text"),
    (bool, True, 1, "True or False"),
    (int, 1, True, "a whole number"),
    (float, 1, True, "a number"),
    (str | None, None, 1, "text or None"),
    (Literal["a", "b"], "b", "c", "'a' or 'b'"),
    (Literal[1], 1, True, "1"),
    (Callable[[int], str], len, 3, "a function"),
    (Open, len, 3, "a function"),
    (Samples, Both(), NoFunction(), "a Samples"),
    (tuple[str, ...], ("a",), ("a", 1), "a tuple of text"),
    (tuple[str, int], ("a", 1), ("a",), "a tuple of text, a whole number"),
    (Sequence[str], ["a"], 3, "a Sequence"),
    (Mapping[str, int], {}, [], "a Mapping"),
    (type[Exception], ValueError, int, "a subclass of Exception"),
    (type[Exception] | None, None, ValueError(), "a subclass of Exception or None"),
    (Exception, ValueError(), ValueError, "an Exception"),
]


@pytest.mark.parametrize(("annotation", "right", "wrong", "words"), FITS)
def test_values_against_annotations(annotation, right, wrong, words):
    assert (fits(right, annotation), fits(wrong, annotation)) == (True, False)
    assert in_words(annotation) == words and fits(wrong, Any)


def test_an_annotation_that_cannot_be_checked_is_no_silent_pass():
    with pytest.raises(TypeError, match="cannot be checked"):
        fits(1, "int")


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = field(init=False, default="")
    title: str
    inner: Inner | None = None


def test_members_are_checked_down_to_nested_ones():
    assert members(Outer) == ("title", "inner") and members(int) == ()
    assert wrong_member(Outer(title="x", inner=Inner(size=1)), Outer) is None
    wrong = wrong_member(Outer(title="x", inner=Inner(size="1")), Outer)
    assert (wrong.found, wrong.allowed) == ("inner.size='1', of type str", "a whole number")


@pytest.mark.parametrize(
    ("arguments", "members", "hint"),
    [
        ((), {"titel": "x"}, "did you mean 'title'?"),
        (("x",), {}, "members are given by name: title=, inner="),
        ((), {"name": "x"}, "leave name out: it is the file's"),
        ((), {}, "the members of Outer are title, inner"),
    ],
)
def test_what_to_do_about_a_misspelt_member(arguments, members, hint):
    with pytest.raises(TypeError) as caught:
        Outer(*arguments, **members)
    assert misspelt(caught.value, Outer) == hint
    assert misspelt(TypeError("'int' object is not callable"), Outer) is None


class Opens(Protocol):
    def __call__(self, path: Path, *, threads: int | None = None) -> str: ...


@pytest.mark.parametrize(
    ("function", "annotation", "problem"),
    [
        (lambda path, *, threads=None: "", Opens, None),
        (lambda *arguments, **named: "", Opens, None),
        (lambda path: "", Opens, "unexpected keyword argument 'threads'"),
        (lambda path, other, *, threads=None: "", Opens, "missing a required argument: 'other'"),
        (lambda: "", Opens, "too many positional arguments"),
        (lambda one, two: 0, Callable[[int, int], int], None),
        (lambda one: 0, Callable[[int, int], int], "too many positional arguments"),
        (lambda one: 0, Callable[[int, int], int] | None, "too many positional arguments"),
        (None, Callable[[int], int] | None, None),
        (lambda: 0, Callable[..., int], None),
        (len, Callable[[int, int], int], None),
    ],
)
def test_how_a_function_is_called_is_checked_before_it_is(function, annotation, problem):
    found = refused_call(function, annotation)
    assert (found is None) if problem is None else problem in str(found)


class Shape(Protocol):
    sides: int
    names: tuple[str, ...]

    def draw(self) -> None: ...


def test_what_an_object_lacks_of_a_protocol():
    right = SimpleNamespace(sides=3, names=("a",), draw=print)
    assert lacking(right, Shape) == [] and fits(right, Shape)
    wrong = SimpleNamespace(sides="3", names=("a", 2))
    assert lacking(wrong, Shape) == ["draw", "names", "sides"] and not fits(wrong, Shape)
    assert lacking(3, int) == [] == lacking(None, Shape)
