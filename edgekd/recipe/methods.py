"""Distillation methods as far as the recipe's reader knows them: it imports nothing of the distillation itself."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from edgekd import plugins
from edgekd.recipe.settings import TermSettings


class MethodPlugin(Protocol):
    """What the reader asks of a method; edgekd.distillation.method.Method has it."""

    @property
    def on_features(self) -> bool:
        """Whether it looks at layers."""
        ...

    @property
    def parameter_model(self) -> type[BaseModel]:
        """A strict model of its parameters."""
        ...

    def check(self, term: TermSettings) -> None:
        """Raises UsageError or pydantic.ValidationError for what is wrong with a term."""
        ...


def load(name: str) -> MethodPlugin:
    """The method of a name.

    Raises:
        UnknownNameError: there is no such method.
        PluginError: its file is broken.
    """
    found: MethodPlugin = plugins.load("method", name)
    return found
