"""Checks a model's name in a recipe, without building it or running the user's code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd import plugins
from edgekd.errors import UnknownNameError, UsageError
from edgekd.recipe.code import check_reference, reference
from edgekd.recipe.onnx_file import check_onnx_file, onnx_file


def check_name(model: str) -> None:
    """Check that a model exists.

    Args:
        model: `source/name`, `nets.py:build` for a function of the user's own, or `teacher.onnx`.

    Raises:
        UnknownNameError: no such source, or it has no such model.
        UsageError: the file cannot be read, or no function is named.
    """
    if check_reference(model) or check_onnx_file(model):
        return
    source, _, name = model.partition("/")
    known = plugins.load("models", source).names()
    if name not in known:
        raise UnknownNameError(f"model of {source}", name, known)


def check_arguments(model: str, arguments: Mapping[str, Any]) -> None:
    """Check that no argument makes a source's builder read a file or fetch weights: it might unpickle them.

    Args:
        model: as for check_name(); a function of the user's own may have any arguments.
        arguments: for the function that builds it.

    Raises:
        UsageError: there is one.
        UnknownNameError: no such source.
    """
    if reference(model) is not None or onnx_file(model) is not None:
        return
    source = model.partition("/")[0]
    if loading := sorted(plugins.load("models", source).loading & arguments.keys()):
        raise UsageError(
            f"{model} must not be built with {', '.join(loading)}",
            found=", ".join(f"{name}: {arguments[name]}" for name in loading),
            hint="give weights as `checkpoint`, or take published ones with `pretrained: true`",
        )
