"""Reads the fields of a JSON object from anywhere; the standard library only.

Each function returns a value of the type that it is called after, or raises ValueError with the field's place, what was
found there and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MISSING = object()
_SHOWN = 60


def field(raw: Mapping[str, Any], name: str, above: str = "") -> Any:
    """The field of an object at the place `above`."""
    value = raw.get(name, _MISSING)
    if value is _MISSING:
        raise ValueError(f"{above}{name} is missing")
    return value


def text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _other(value, place, "a text")
    return value


def texts(value: object, place: str) -> tuple[str, ...]:
    """A list of texts, none of which occurs twice."""
    found = tuple(text(each, f"{place}[{index}]") for index, each in enumerate(items(value, place)))
    if twice := next((each for each in found if found.count(each) > 1), None):
        raise ValueError(f"{place} has {twice!r} twice")
    return found


def number(value: object, place: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise _other(value, place, f"a number from {least:g} to {most:g}")
    return float(value)


def whole(value: object, place: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _other(value, place, f"a whole number from {least} to {most}")
    return value


def items(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _other(value, place, "a list")
    return value


def mapping(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _other(value, place, "an object")
    return value


def _other(value: object, place: str, allowed: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{place} is {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}…'}, not {allowed}")
