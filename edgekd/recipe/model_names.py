"""Checks a model's name in a recipe, without building it or running the user's code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from edgekd import plugins
from edgekd.errors import EdgekdError, UnknownNameError, UsageError
from edgekd.recipe.code import FORM, check_reference, reference
from edgekd.recipe.onnx_file import check_onnx_file, onnx_file

# Files that hold weights, in the formats that trainers and exporters write.
_WEIGHTS = re.compile(r"\.(safetensors|pth|pt|ckpt|bin|tar)$", re.IGNORECASE)


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
    try:
        known = plugins.load("models", source).names()
    except UnknownNameError as error:
        raise _completed(error, model) from None
    if name not in known:
        raise UnknownNameError(f"model of {source}", name, known)


def check_arguments(model: str, arguments: Mapping[str, Any]) -> None:
    """Check that no argument decides what the recipe decides elsewhere: the classes, or the weights.

    An argument that makes a source's builder read a file or fetch weights might unpickle them.

    Args:
        model: as for check_name(); a function of the user's own may have any other arguments.
        arguments: for the function that builds it.

    Raises:
        UsageError: there is one.
        UnknownNameError: no such source.
    """
    if "num_classes" in arguments:
        raise UsageError(
            f"{model} must not be built with num_classes",
            found=f"num_classes: {arguments['num_classes']}",
            hint="remove it: a network has one logit for each class of the data",
        )
    if reference(model) is not None or onnx_file(model) is not None:
        return
    source = model.partition("/")[0]
    if loading := sorted(plugins.load("models", source).loading & arguments.keys()):
        raise UsageError(
            f"{model} must not be built with {', '.join(loading)}",
            found=", ".join(f"{name}: {arguments[name]}" for name in loading),
            hint="give weights as `checkpoint`, or take published ones with `pretrained: true`",
        )


def _completed(error: UnknownNameError, model: str) -> UnknownNameError:
    """The error for an unknown source, with what else `model` may be meant to be.

    That is a source's model, the path of a network of the user's own, or the path of weights.
    """
    hint = error.hint
    if _WEIGHTS.search(model):
        hint = "name the network that the weights belong to, and give the file as `checkpoint`"
    elif hint is None and model.isidentifier():
        if named := [f"{source}/{model}" for source in plugins.names("models") if model in _names(source)]:
            hint = f"did you mean {' or '.join(map(repr, named))}?"
    elif hint is None and model.strip("./~") and "://" not in model:
        hint = f"name the file of a network of your own and a function in it: {_as_file(model)}"
    error.allowed, error.hint = f"SOURCE/NAME with a source of {error.allowed}; or {FORM}", hint
    return error


def _names(source: str) -> Collection[str]:
    """A source's models; none where it cannot be loaded, which is not what the message is about."""
    try:
        names: Collection[str] = plugins.load("models", source).names()
    except (EdgekdError, ImportError):
        return ()
    return names


def _as_file(model: str) -> str:
    """How the network would be named, if `model` is the path of its file without the suffix, or with another one."""
    path, _, function = model.partition(":")
    path = re.sub(r"\.[^./]*$", "", path.strip()).rstrip("/") or "nets"
    return f"{path}.py:{function if function.isidentifier() else 'build'}"
