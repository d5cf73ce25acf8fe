"""Checks a model's name in a recipe, without building it or running the user's code."""

from __future__ import annotations

from edgekd import plugins
from edgekd.errors import UnknownNameError
from edgekd.recipe.code import check_reference


def check_name(model: str) -> None:
    """Check that a model exists.

    Args:
        model: `source/name`, or `nets.py:build` for a function of the user's own.

    Raises:
        UnknownNameError: no such source, or it has no such model.
        UsageError: the file cannot be read, or no function is named.
    """
    if check_reference(model):
        return
    source, _, name = model.partition("/")
    known = plugins.load("models", source).names()
    if name not in known:
        raise UnknownNameError(f"model of {source}", name, known)
