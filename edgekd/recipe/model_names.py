"""Whether a model's name in a recipe is known; nothing is built for that."""

from __future__ import annotations

from edgekd import plugins
from edgekd.errors import UnknownNameError


def check_name(model: str) -> None:
    """Raises UnknownNameError where no source has this model."""
    source, _, name = model.partition("/")
    known = plugins.load("models", source).names()
    if name not in known:
        raise UnknownNameError(f"model of {source}", name, known)
