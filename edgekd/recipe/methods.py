"""Distillation methods as the recipe's reader sees them: nothing of edgekd.distillation is imported here."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from edgekd import plugins
from edgekd.recipe.settings import Task, TermSettings


class MethodPlugin(Protocol):
    """What the reader needs of a method; edgekd.distillation.method.Method implements it."""

    @property
    def on_features(self) -> bool:
        """Whether the loss compares features of layers."""
        ...

    @property
    def parameter_model(self) -> type[BaseModel]:
        """A strict model of its parameters."""
        ...

    def suits(self, task: Task) -> bool:
        """Whether the loss has a meaning for labels of this kind."""
        ...

    def check(self, term: TermSettings) -> None:
        """Raises UsageError or pydantic.ValidationError where a term does not fit the method."""
        ...


def load(name: str) -> MethodPlugin:
    """The method of that name.

    Raises:
        UnknownNameError: there is no such method.
        PluginError: its file is broken.
    """
    method: MethodPlugin = plugins.load("method", name)
    return method
