"""pydantic's errors as messages about a recipe: `must be a whole number; found: "32"`."""

from __future__ import annotations

import json

from pydantic_core import ErrorDetails

from edgekd.errors import nearest

_LONGEST = 200
# By pydantic's type of error; another type keeps pydantic's own message.
_MESSAGES = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "needs at least {min_length}, has {actual_length}",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
}


def explain(problem: ErrorDetails) -> str:
    """What is wrong and what was found instead, in one line, without the place."""
    context = {
        key: f"{value:g}" if isinstance(value, float) else value for key, value in problem.get("ctx", {}).items()
    }
    words = _MESSAGES.get(problem["type"])
    message = words.format(**context) if words else problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    if problem["type"] in ("missing", "too_short", "value_error"):
        return message
    hint = ""
    if problem["type"] == "literal_error" and isinstance(found, str):
        near = nearest(found, str(context["expected"]).replace("'", "").split(" or "))
        hint = f"; did you mean {near!r}?" if near else ""
    return f"{message}; found: {_shown(found)}{hint}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
