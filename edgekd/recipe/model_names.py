"""Checks a model's name in a recipe, without building it or running the user's code."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from edgekd import plugins
from edgekd.errors import EdgekdError, UnknownNameError, UsageError, nearest
from edgekd.recipe.code import FORM, check_reference, reference
from edgekd.recipe.onnx_file import check_onnx_file, onnx_file

# Files that hold weights, in the formats that trainers and exporters write.
_WEIGHTS = re.compile(r"\.(safetensors|pth|pt|ckpt|bin|tar)$", re.IGNORECASE)
# A suggestion is at least this similar (0 … 1), and nearly as similar as the best one.
_SIMILAR, _NEARLY, _SUGGESTIONS = 0.75, 0.05, 3
_BEGUN = 0.96  # of a name that is given in part
_LISTED = 40
_ALIKE = str.maketrans("ol", "01")


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
        raise _unknown_model(source, name, known)


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
    hint, (source, slash, name) = error.hint, model.partition("/")
    if _WEIGHTS.search(model):
        hint = "name the network that the weights belong to, and give the file as `checkpoint`"
    elif slash and hint is not None:
        meant = nearest(source, plugins.names("models"))
        hint = _did_you_mean(_similar(name, [meant] if meant is not None else [])) or hint
    elif not slash and (similar := _similar(model, plugins.names("models"))):
        hint = _did_you_mean(similar)
    elif hint is None and not model.isidentifier() and model.strip("./~") and "://" not in model:
        hint = f"name the file of a network of your own and a function in it: {_as_file(model)}"
    error.allowed, error.hint = f"SOURCE/NAME with a source of {error.allowed}; or {FORM}", hint
    return error


def _unknown_model(source: str, name: str, known: Collection[str]) -> UnknownNameError:
    """With the most similar models: of this name in other sources, then of this source."""
    error = UnknownNameError(f"model of {source}", name, known)
    if len(known) > _LISTED:
        error.allowed = f"one of the {len(known):,} names of {source}"
    others = [each for each in plugins.names("models") if each != source]
    elsewhere = [f"{each}/{name}" for each in others if name in _names(each)]
    error.hint = _did_you_mean([*elsewhere, *_similar(name, [source])])
    return error


def _did_you_mean(models: Collection[str]) -> str | None:
    shown = [repr(model) for model in models][:_SUGGESTIONS]
    return f"did you mean {' or '.join(filter(None, (', '.join(shown[:-1]), shown[-1])))}?" if shown else None


def _similar(name: str, sources: Iterable[str]) -> list[str]:
    """The models most like a name, as source/name, the most similar first."""
    # In timm a dot separates the name of published weights.
    wanted = {_plain(name), _plain(name.partition(".")[0])}
    found = [(*_likeness(wanted, known), f"{source}/{known}") for source in sources for known in _names(source)]
    best = max((ratio for ratio, _, _ in found), default=0.0)
    near = [each for each in found if each[0] >= max(_SIMILAR, best - _NEARLY)]
    if best == 1.0:
        near = [each for each in near if each[0] == 1.0]
    return [model for _, _, model in sorted(near, key=lambda each: (-each[0], -each[1], len(each[2]), each[2]))]


def _likeness(wanted: Collection[str], known: str) -> tuple[float, int]:
    """How similar a known name is, and how many first characters are the same."""
    plain = _plain(known)

    def ratio(name: str) -> float:
        likeness = difflib.SequenceMatcher(None, plain, name).ratio()
        return max(likeness, _BEGUN) if len(name) > 3 and plain.startswith(name) and plain != name else likeness

    return max((ratio(each), len(os.path.commonprefix([plain, each]))) for each in wanted)


def _plain(name: str) -> str:
    """Without case and separators, in which the sources' names differ, and with one form for O and 0, for l and 1."""
    return re.sub(r"[^a-z0-9.]", "", name.lower()).translate(_ALIKE)


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
