"""Whether a model's name in a recipe is known; nothing is built for that, and no code of the user's is run."""

from __future__ import annotations

from edgekd import plugins
from edgekd.errors import UnknownNameError
from edgekd.recipe.code import check_reference


def check_name(model: str) -> None:
    """Look for `source/name`, or for the file of `nets.py:build`.

    Raises:
        UnknownNameError: no source has this model.
        UsageError: the file is not there, or no function is named.
    """
    if check_reference(model):
        return
    source, _, name = model.partition("/")
    known = plugins.load("models", source).names()
    if name not in known:
        raise UnknownNameError(f"model of {source}", name, known)
