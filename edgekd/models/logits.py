"""Whether a network answers images with one logit per class, and which of its arguments makes it answer otherwise."""

from __future__ import annotations

import copy
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from edgekd.errors import EdgekdError, ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.trial import answer_of, describe
from edgekd.runtime.preprocess import InputShape


def check_logits(network: nn.Module, architecture: Architecture, shape: InputShape, *, trained: bool) -> None:
    """Run a network on one image and, where it is trained, a copy of it in training mode on two.

    Args:
        network: not changed.
        architecture: of the network.
        shape: of the input.
        trained: whether it will be trained.

    Raises:
        ModelError: it cannot compute such images, or does not return one tensor of (B, num_classes) finite logits. The
            message names the argument at fault: one without which the network does.
    """
    try:
        _check(network, architecture, shape, trained=trained)
    except ModelError as error:
        names = _at_fault(architecture, shape, trained=trained)
        if names:
            given = ", ".join(f"{name}: {_shown(architecture.arguments[name])}" for name in names)
            left = "it" if len(names) == 1 else "them"
            error.hint = f"remove {given} from the arguments of {architecture.model}: without {left} it returns logits"
        raise


def _check(network: nn.Module, architecture: Architecture, shape: InputShape, *, trained: bool) -> None:
    was_training = network.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            _require_logits(answer_of(network.eval(), shape), 1, architecture, "in eval mode")
        finally:
            network.train(was_training)
        if trained:
            # A copy: batch norms change in training mode.
            answer = answer_of(copy.deepcopy(network).train(), shape, images=2)
            _require_logits(answer, 2, architecture, "in training mode")


def _require_logits(answer: object, images: int, architecture: Architecture, mode: str) -> None:
    wanted = (images, architecture.num_classes)
    right = isinstance(answer, Tensor) and answer.is_floating_point() and tuple(answer.shape) == wanted
    if not right or not isinstance(answer, Tensor):
        raise ModelError(
            f"{architecture.model} does not return logits {mode}",
            found=f"{describe(answer)} for {images} image{'s' if images > 1 else ''}",
            allowed=f"one tensor of shape {wanted}: a logit for each class",
            hint="name a network that is built as a classifier",
        )
    if not bool(answer.isfinite().all()):
        raise ModelError(
            f"{architecture.model} returns NaN or infinite logits {mode}",
            found="for black images, before any training",
        )


def _at_fault(architecture: Architecture, shape: InputShape, *, trained: bool) -> list[str]:
    """The argument without which the network returns logits; all of them where one is not enough."""
    arguments = architecture.arguments
    for without in [*([name] for name in arguments), list(arguments)]:
        kept = {name: value for name, value in arguments.items() if name not in without}
        other = architecture.model_copy(update={"arguments": kept})
        try:
            with torch.random.fork_rng(devices=[]):
                _check(build(other), other, shape, trained=trained)
        except EdgekdError:
            continue
        return without
    return []


def _shown(value: Any) -> str:
    """As a recipe has it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]
    return text
