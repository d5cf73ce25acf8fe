"""From a Python function to the `model: nets.py:build` that refers to it in a recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.errors import UsageError
from edgekd.recipe.code import Reference

_ALLOWED = "a function or class at the top level of a .py file: def build(num_classes, **arguments) -> nn.Module"


def reference_to(factory: Callable[..., Any]) -> Reference:
    """The file and name of a function that builds a network.

    A checkpoint carries a copy of this file and rebuilds the network from it.

    Raises:
        UsageError: a lambda, a nested function, an object without a name, or one that was not defined in a file.
    """
    name = getattr(factory, "__qualname__", None)
    if not callable(factory) or not isinstance(name, str):
        raise _refused(repr(factory), "an object without a name", "put its arguments into the recipe's `arguments`")
    if not name.isidentifier():
        kind = "a lambda" if "<lambda>" in name else "a nested function" if "<locals>" in name else "a method"
        raise _refused(name, kind, "move it to the top level of a file")
    module = sys.modules.get(str(factory.__module__))
    file = Path(getattr(module, "__file__", None) or "")
    if module is None or file.suffix != ".py" or not file.is_file():
        raise _refused(
            name, f"defined in {factory.__module__}, which is not a .py file", "write it to a file, and import it"
        )
    if getattr(module, name, None) is not factory:
        raise _refused(name, f"{file} has another object of this name", "pass the object that the file defines")
    return Reference(file.absolute(), name)


def _refused(name: str, found: str, hint: str) -> UsageError:
    return UsageError(f"{name} cannot build a recipe's network", found=found, allowed=_ALLOWED, hint=hint)
