"""The order of classes that are known by their names only: it decides which logit stands for which class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from edgekd.data.class_names import alike, spelled
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

ClassOrder = Literal["name", "natural"]
_SHOWN = 5
_Part = tuple[int, str]


def in_order(names: Iterable[str], order: ClassOrder) -> tuple[str, ...]:
    """Class names in order.

    Args:
        names: in any order.
        order: "name" compares them as text, like Python's `sorted`; "natural" compares the numbers in them as numbers
            and letters whatever their case, like timm.

    Example:
        >>> in_order(["10", "2", "1"], "name"), in_order(["10", "2", "1"], "natural")
        (('1', '10', '2'), ('1', '2', '10'))
    """
    return tuple(sorted(names, key=_natural) if order == "natural" else sorted(names))


def arranged(names: Iterable[str], settings: DataSettings) -> tuple[str, ...]:
    """The names that a source has found, in the order that the data section states: data.classes, else class_order.

    Raises:
        DataError: data.classes are others.
    """
    found = in_order(names, settings.class_order)
    if settings.classes is None:
        return found
    if missing := sorted(set(found) ^ set(settings.classes)):
        # Names that look the same are told apart.
        names = spelled(missing[:_SHOWN]) if alike(missing) else shown(missing)
        raise DataError(
            "data.classes are not the classes of the images",
            found=f"only in one of the two: {names}",
            allowed=f"{shown(found)}, in any order",
        )
    return settings.classes


def depends_on_order(names: Sequence[str]) -> bool:
    """Whether the two orders of these names differ."""
    return in_order(names, "name") != in_order(names, "natural")


def shown(names: Sequence[str]) -> str:
    """The first names of a list, on one line."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _natural(name: str) -> tuple[list[_Part], str]:
    """Text and numbers by turns, beginning with text; a number by its length, then its digits, since it may be huge."""
    parts: list[_Part] = []
    for place, part in enumerate(re.split("([0-9]+)", name.lower())):
        digits = part.lstrip("0")
        parts.append((len(digits), digits) if place % 2 else (0, part))
    return parts, name  # "01" and "1" are equal as numbers
