"""From what a recipe says about a method to a function: parameters checked against the function's own signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor

from edgekd import plugins
from edgekd.settings import TermSettings


@dataclass(frozen=True)
class Term:
    """One weighted loss. `inputs` are the quantities it asks for by name."""

    method: str
    weight: float
    parameters: Mapping[str, Any]
    inputs: tuple[str, ...]
    function: Callable[..., Tensor]

    def __call__(self, quantities: Mapping[str, Tensor]) -> Tensor:
        return self.weight * self.function(**{name: quantities[name] for name in self.inputs})


def method_function(name: str) -> Callable[..., Tensor]:
    """The loss in the file of its name.

    Raises:
        UnknownNameError: there is no such method.
    """
    function: Callable[..., Tensor] = getattr(plugins.load("method", name), name)
    return function


def parameter_model(name: str) -> type[BaseModel]:
    """A strict pydantic model of what a recipe may set on a method: its keyword-only parameters."""
    function = method_function(name)
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    config = ConfigDict(frozen=True, extra="forbid", strict=True)
    return create_model(f"{name}_parameters", __config__=config, **fields)


def make_term(settings: TermSettings) -> Term:
    """Raises UnknownNameError for the method, pydantic.ValidationError for its parameters."""
    function = method_function(settings.method)
    parameters = parameter_model(settings.method).model_validate(settings.parameters).model_dump()
    inputs = tuple(
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    )
    return Term(settings.method, settings.weight, parameters, inputs, partial(function, **parameters))
