"""Edits: changes to a built network that its checkpoint replays. One file per edit; it exports EDIT, an Edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from edgekd.models.architecture import Architecture


def _builds_none(edit: Mapping[str, Any]) -> Sequence[Architecture]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An edit of an architecture.

    Attributes:
        apply: from a network and the manifest's entry, e.g. {"edit": "prune", "history": […]}, to the changed
            network, which may be the same object. Raises ModelError where it does not fit.
        architectures: the further networks that an entry has built; the checkpoint carries their code too.
    """

    apply: Callable[[nn.Module, Mapping[str, Any]], nn.Module]
    architectures: Callable[[Mapping[str, Any]], Sequence[Architecture]] = _builds_none
