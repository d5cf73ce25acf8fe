"""Networks from outside edgekd: building a user's own, and checking the outputs of all before any training."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgekd import plugins
from edgekd.errors import ModelError, summary
from edgekd.models.architecture import Architecture, Code
from edgekd.models.code import code_of, module_of, source_of, user_code_error
from edgekd.models.trial import describe
from edgekd.recipe.code import CodeFile
from edgekd.runtime.preprocess import InputShape

# Of the largest logit: kernels add in another order for another batch size.
_ROUNDING = 1e-3


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


def check_outputs(network: nn.Module, architecture: Architecture, shape: InputShape, *, trained: bool) -> None:
    """Run copies of a network from outside on noise, in training mode and in eval mode.

    Args:
        network: not changed.
        architecture: of the network.
        shape: of the input.
        trained: whether it will be trained.

    Raises:
        ModelError: it has no parameters to train, or some without a shape; it raises an error; its output is not one
            tensor of (B, num_classes) finite logits; it cannot compute in channels_last; or, in eval mode, an image's
            logits depend on chance or on its batch.
    """
    code = architecture.code
    file = None if code is None else source_of(code)
    name = f"the network of {architecture.model if code is None or file is None else _named(code, file)}"
    _check_parameters(network, name, trained=trained)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))

    def failed(what: str, error: BaseException) -> ModelError:
        return ModelError(what, found=summary(error)) if file is None else user_code_error(what, error, file)

    def logits_of(batch: Tensor, *, training: bool) -> Tensor:
        try:
            with torch.no_grad():
                answer = copy.deepcopy(network).train(training)(batch)
        except (Exception, SystemExit) as error:
            batched = "a batch of one image" if len(batch) == 1 else f"a batch of {len(batch)} images"
            raise failed(f"{name} raised an error on {batched} of {shape}", error) from error
        _check_logits(answer, (len(batch), architecture.num_classes), name, training=training)
        return answer  # type: ignore[no-any-return]  # checked above

    with torch.random.fork_rng(devices=[]):
        logits_of(images, training=True)
        together = logits_of(images, training=False)
        again = logits_of(images, training=False)
        alone = torch.cat([logits_of(image[None], training=False) for image in images])
    try:
        _compute_channels_last(network, images, trained=trained)
    except (Exception, SystemExit) as error:
        refused = failed(f"{name} computes images in the usual memory format only, not in channels_last", error)
        refused.hint = "edgekd computes in channels_last, which is faster: write reshape where it has view"
        raise refused from error
    _check_equal(together, again, f"{name} returns other logits for the same images when it is called again")
    _check_equal(together, alone, f"{name} returns other logits for an image alone than in a batch of 2")


def _compute_channels_last(network: nn.Module, images: Tensor, *, trained: bool) -> None:
    """Forward and, where it will be trained, backward: PyTorch has the same operations, but not for all views."""
    own = copy.deepcopy(network).to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(trained):
        logits = own.train(trained)(images.contiguous(memory_format=torch.channels_last))
        if logits.requires_grad:
            logits.sum().backward()


def _check_parameters(network: nn.Module, name: str, *, trained: bool) -> None:
    tensors = dict([*network.named_parameters(), *network.named_buffers()])
    if lazy := [key for key, tensor in tensors.items() if is_lazy(tensor)]:
        raise ModelError(
            f"{name} has parameters whose shape is not known before its first batch",
            found=", ".join(lazy[:4]),
            hint="give lazy layers their sizes: nn.Linear(in_features, num_classes) for nn.LazyLinear(num_classes)",
        )
    parameters = list(network.parameters())
    if not parameters:
        raise ModelError(f"{name} has no parameters", allowed="a network that can learn")
    if trained and not any(parameter.requires_grad for parameter in parameters):
        raise ModelError(
            f"{name} cannot be trained: all its parameters are frozen",
            found=f"requires_grad=False for all {len(parameters)}",
            allowed="at least one with requires_grad=True",
        )


def _check_equal(logits: Tensor, other: Tensor, what: str) -> None:
    difference = float((logits - other).abs().max()) / max(float(logits.abs().max()), 1e-12)
    if difference > _ROUNDING:
        raise ModelError(
            what,
            found=f"a difference of {difference:.1e} of the largest logit, in eval mode",
            allowed=f"at most {_ROUNDING:.0e}",
            hint="in eval mode, forward() must neither draw random numbers nor combine the images of a batch",
        )


def _check_logits(answer: object, shape: tuple[int, int], name: str, *, training: bool) -> None:
    mode = "in training mode" if training else "in eval mode"
    if not isinstance(answer, Tensor):
        raise ModelError(
            f"{name} does not return one tensor {mode}",
            found=describe(answer),
            allowed=f"logits of shape (batch, {shape[1]})",
        )
    if tuple(answer.shape) != shape:
        raise ModelError(
            f"{name} returns another shape for a batch of {shape[0]} {mode}",
            found=tuple(answer.shape),
            allowed=f"{shape}: one logit per class",
            hint="set the width of the last layer to the function's num_classes",
        )
    if not bool(answer.isfinite().all()):
        raise ModelError(f"{name} returns NaN or infinite logits for noise {mode}")
    if shape[1] > 1 and bool((answer >= 0).all()) and bool(((answer.sum(1) - 1).abs() < _ROUNDING).all()):
        raise ModelError(
            f"{name} returns probabilities {mode}",
            found="rows that add up to 1",
            allowed="logits: losses and bundles compute the probabilities themselves",
            hint="leave the softmax at its end out",
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
