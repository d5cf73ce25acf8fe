"""Builds a network from its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekd import plugins
from edgekd.errors import EdgekdError, ModelError, summary
from edgekd.models.architecture import Architecture
from edgekd.models.greyscale import to_greyscale
from edgekd.models.own import build_own
from edgekd.models.stems import shrink_stem
from edgekd.recipe.model_names import check_arguments, check_name


def published_classes(model: str) -> int:
    """The number of classes of a model's published weights; 0 where they come without a last layer.

    Raises:
        ModelError: there are no published weights.
    """
    source, _, name = model.partition("/")
    try:
        return int(plugins.load("models", source).published_classes(name))
    except ValueError as error:
        raise ModelError(str(error)) from None


def published_class_names(model: str) -> tuple[str, ...]:
    """The names of the classes of a model's published weights; empty where its source does not know them."""
    source, _, name = model.partition("/")
    names = plugins.load("models", source).class_names
    return tuple(names(name)) if names is not None else ()


def has_published(model: str) -> bool:
    """Whether a model's published weights lie on this machine; False also where its source cannot tell."""
    source, _, name = model.partition("/")
    here = plugins.load("models", source).here
    return here is not None and bool(here(name))


def bring_published(model: str) -> str:
    """How to bring a model's published weights to a machine without a connection."""
    source, _, name = model.partition("/")
    bring = plugins.load("models", source).bring
    return str(bring(name)) if bring is not None else "give a file of weights: checkpoint: …"


def build(architecture: Architecture, *, pretrained: bool = False) -> nn.Module:
    """The network of an architecture, with random or published weights, and its edits applied.

    Args:
        architecture: of the network.
        pretrained: whether it starts with the weights that its source publishes; a network of the user's own has none,
            and is built as its function builds it.

    Returns:
        A network on the CPU, from (B, C, H, W) to (B, K) logits.

    Raises:
        UnknownNameError: no such source or model.
        UsageError: it is a network of the user's own, and its code is not allowed to run.
        ModelError: the arguments are wrong, or an edit does not fit.
    """
    model = (
        _from_source(architecture, pretrained)
        if architecture.code is None
        else build_own(architecture.code, architecture.num_classes, architecture.arguments)
    )
    if architecture.channels == 1 and architecture.code is None:
        to_greyscale(model, architecture.model)
    if architecture.small_stem:
        shrink_stem(model, architecture.model)
    for edit in architecture.edits:
        model = _replayed(model, edit, architecture.model)
    return model


def _from_source(architecture: Architecture, pretrained: bool) -> nn.Module:
    check_name(architecture.model)
    check_arguments(architecture.model, architecture.arguments)
    source, _, name = architecture.model.partition("/")
    models = plugins.load("models", source)
    try:
        model: nn.Module = models.build(
            name, num_classes=architecture.num_classes, pretrained=pretrained, **architecture.arguments
        )
    except EdgekdError:
        raise
    # The source's code runs here with the recipe's arguments, and may raise anything.
    except Exception as error:
        found = summary(error)
        if pretrained and isinstance(error, OSError):
            raise ModelError(
                f"the published weights of {architecture.model} cannot be fetched",
                found=found,
                hint=f"they are downloaded once. Without a connection {bring_published(architecture.model)}",
            ) from error
        what = f"{architecture.model} cannot be built with {architecture.arguments or 'no arguments'}"
        raise ModelError(what, found=found) from error
    return model


def _replayed(model: nn.Module, edit: Mapping[str, Any], name: str) -> nn.Module:
    """Apply an edit. Any error in it is reported as one of the manifest, which may come from anywhere."""
    try:
        changed: nn.Module = plugins.load("edit", str(edit["edit"])).apply(model, edit)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"the manifest's edit {edit.get('edit', 'without a name')!r} cannot be replayed on {name}",
            found=summary(error),
            hint="the checkpoint is damaged, or was written by another version: make it again",
        ) from error
    return changed
