"""Export variants, one per file: each file exports `VARIANT`, everything that others need to know of it.

Light: a variant's file imports PyTorch and ONNX only where it converts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgekd import plugins
from edgekd.export.variant import Variant


def find(name: str) -> Variant[Any]:
    """The variant of that name.

    Raises:
        UnknownNameError: there is none.
    """
    found: Variant[Any] = plugins.load("variant", name)
    return found


def ordered(names: Iterable[str]) -> list[Variant[Any]]:
    """These variants, each behind the one that it is converted from."""
    return sorted(map(find, names), key=lambda each: each.rank)
