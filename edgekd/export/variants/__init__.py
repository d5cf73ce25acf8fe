"""Export variants, one file per variant: each exports `VARIANT`, a Variant.

A variant's file imports PyTorch and ONNX only inside `convert`, so that listing variants is cheap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgekd import plugins
from edgekd.errors import PluginError
from edgekd.export.variant import Variant


def find(name: str) -> Variant[Any]:
    """The variant of that name.

    Raises:
        UnknownNameError: there is no such variant.
    """
    variant: Variant[Any] = plugins.load("variant", name)
    return variant


def ordered(names: Iterable[str]) -> list[Variant[Any]]:
    """The variants of these names, each after the one that it is converted from.

    Raises:
        UnknownNameError: there is no such variant.
        PluginError: one is converted from a variant that is converted itself.
    """
    found = sorted(map(find, names), key=lambda each: each.rank)
    for variant in found:
        base = find(variant.base) if variant.base is not None else None
        if base is not None and base.base is not None:
            raise PluginError(
                f"the export variant {variant.name!r} is converted from {base.name!r}, which is converted itself",
                found=f"base={base.base!r} there",
                allowed="a variant that is exported from a checkpoint",
            )
    return found
