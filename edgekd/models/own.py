"""Networks from outside edgekd: building a user's own, and checking the outputs of all before any training."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.errors import ModelError, summary
from edgekd.models.architecture import Architecture, Code
from edgekd.models.code import code_of, module_of, source_of, user_code_error
from edgekd.recipe.code import CodeFile


def build_own(code: Code, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network by calling a user's function.

    Args:
        code: the file and the name of the function in it.
        num_classes: passed to the function: how many logits the network has.
        arguments: further keyword arguments, passed as copies.

    Returns:
        The network as the function returns it; its outputs are checked by check_outputs().

    Raises:
        UsageError: this code is not allowed to run.
        ModelError: the file or the function raises an error, takes other arguments, or does not return a network.
    """
    file = source_of(code)
    function = _function(module_of(file), code, file)
    keywords = {"num_classes": num_classes, **copy.deepcopy(dict(arguments))}
    _check_signature(function, keywords, code, file)
    try:
        network = function(**keywords)
    # The user's function may raise anything.
    except (Exception, SystemExit) as error:
        raise user_code_error(f"{_named(code, file)} raised an error", error, file) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{_named(code, file)} does not return a network", found=type(network).__name__, allowed="a torch.nn.Module"
        )
    return network


def from_outside(model: str) -> bool:
    """Whether a recipe's `model` is built by code that is not edgekd's: a file of the user's, or a plugin's source.

    Raises:
        UsageError: the user's file cannot be read.
    """
    return code_of(model) is not None or bool(plugins.code_key("models", model.partition("/")[0]))


def check_outputs(network: nn.Module, architecture: Architecture, image_size: int) -> None:
    """Run a copy of a network from outside on zeros, in training mode and in eval mode.

    Args:
        network: not changed.
        architecture: of the network.
        image_size: side of the square images, in pixels.

    Raises:
        ModelError: it raises an error, or its output is not one tensor of (B, num_classes) logits.
    """
    code = architecture.code
    file = None if code is None else source_of(code)
    name = f"the network of {architecture.model if code is None or file is None else _named(code, file)}"
    images = torch.zeros(2, 3, image_size, image_size)
    for training in (True, False):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                answer = copy.deepcopy(network).train(training)(images)
        except (Exception, SystemExit) as error:
            what = f"{name} raised an error on images of {image_size}x{image_size} zeros"
            if file is None:
                raise ModelError(what, found=summary(error)) from error
            raise user_code_error(what, error, file) from error
        _check_logits(answer, architecture.num_classes, name, training=training)


def _check_logits(answer: object, classes: int, name: str, *, training: bool) -> None:
    mode = "in training mode" if training else "in eval mode"
    if not isinstance(answer, Tensor):
        raise ModelError(
            f"{name} does not return one tensor {mode}",
            found=f"a {type(answer).__name__}",
            allowed=f"logits of shape (batch, {classes})",
        )
    if tuple(answer.shape) != (2, classes):
        raise ModelError(
            f"{name} returns another shape for a batch of 2 {mode}",
            found=tuple(answer.shape),
            allowed=f"(2, {classes}): one logit per class",
            hint="set the width of the last layer to the function's num_classes",
        )


def _function(module: ModuleType, code: Code, file: CodeFile) -> Callable[..., object]:
    found = getattr(module, code.function, None)
    if not callable(found):
        own = sorted(
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise ModelError(
            f"{file.path} has no function {code.function!r}",
            found="nothing" if found is None else type(found).__name__,
            allowed=", ".join(own) or "a function of num_classes that returns a torch.nn.Module",
        )
    function: Callable[..., object] = found
    return function


def _check_signature(function: Callable[..., object], given: Mapping[str, Any], code: Code, file: CodeFile) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a function written in C may have no signature: calling it shows whether the arguments fit
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ModelError(
            f"{_named(code, file)} does not take num_classes and the recipe's arguments as keywords",
            found=f"{error}; given: {', '.join(given)}",
            allowed=f"{code.function}{signature}",
            hint="set its arguments under `arguments` in the recipe",
        ) from None


def _named(code: Code, file: CodeFile) -> str:
    return f"{code.function}() in {file.path}"
