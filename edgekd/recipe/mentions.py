"""The names in a recipe that stand for something outside it, and how each is looked up.

Which fields hold such names is declared in their types, so that a new section needs no entry here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from edgekd import plugins
from edgekd.devices import profiles
from edgekd.errors import UnknownNameError, UsageError
from edgekd.recipe import methods
from edgekd.recipe.model_names import check_arguments, check_name
from edgekd.recipe.settings import ModelSettings, NameOf, SchemeSettings, TermSettings, models_in
from edgekd.recipe.yaml_lines import Location

_LOOKUPS: Mapping[str, Callable[[str], object]] = {
    "source": partial(plugins.load, "source"),
    "variant": partial(plugins.load, "variant"),
    "device": profiles.find,
    "model": check_name,
}


@dataclass(frozen=True)
class Mention:
    """A name in a recipe.

    Attributes:
        location: of the name.
        name: as the recipe has it.
        check: looks it up. Raises EdgekdError where it does not exist or its parameters do not fit, and
            pydantic.ValidationError for the parameters themselves.
        parameters: the model of the parameters that stand beside the name; None: it has none.
        section: the name with its parameters.
    """

    location: Location
    name: str
    check: Callable[[], object]
    parameters: Callable[[], type[BaseModel]] | None = None
    section: Mapping[str, Any] = field(default_factory=dict)


def mentions(value: object, annotation: object) -> Iterator[Mention]:
    """All names in a recipe's value, or a part of it.

    Args:
        value: as it was read; it may be wrong in any way.
        annotation: the type that it should have, e.g. RecipeSettings.
    """
    yield from _walk(value, annotation, ())


def _walk(value: object, annotation: Any, location: Location) -> Iterator[Mention]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        for mark in inner[1:]:
            if isinstance(mark, NameOf) and isinstance(value, str):
                yield Mention(location, value, partial(_LOOKUPS[mark.kind], value))
        yield from _walk(value, inner[0], location)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _in_model(value, annotation, location)
    elif origin in (tuple, list):
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from _walk(item, inner[0], (*location, index))
    elif origin is dict:
        for key, item in value.items() if isinstance(value, dict) else ():
            yield from _walk(key, inner[0], (*location, key))
            yield from _walk(item, inner[1], (*location, key))
    else:  # a union; other types have no inner ones
        for option in inner:
            yield from _walk(value, option, location)


def _in_model(value: object, model: type[BaseModel], location: Location) -> Iterator[Mention]:
    if issubclass(model, SchemeSettings) and isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        return
    if issubclass(model, TermSettings) and isinstance(method := value.get("method"), str):
        parameters = partial(_parameters_of_method, method)
        yield Mention((*location, "method"), method, partial(_check_term, value), parameters, value)
    elif issubclass(model, SchemeSettings) and isinstance(scheme := value.get("name"), str):
        parameters = partial(_parameters_of_scheme, scheme)
        yield Mention((*location, "name"), scheme, partial(_check_scheme, value), parameters, value)
    else:
        named, arguments = value.get("model"), value.get("arguments")
        if issubclass(model, ModelSettings) and isinstance(named, str) and isinstance(arguments, dict):
            yield Mention((*location, "arguments"), named, partial(_check_arguments, named, arguments))
        for key, field in model.model_fields.items():
            if key in value:
                annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
                yield from _walk(value[key], annotation, (*location, key))


def _check_arguments(model: str, arguments: dict[str, Any]) -> None:
    with suppress(UnknownNameError):  # found at `model`
        check_arguments(model, arguments)


def _parameters_of_method(name: str) -> type[BaseModel]:
    return methods.load(name).parameter_model


def _parameters_of_scheme(name: str) -> type[BaseModel]:
    parameters: type[BaseModel] = plugins.load("scheme", name).parameters
    return parameters


def _check_term(term: dict[str, Any]) -> None:
    methods.load(term["method"]).check(TermSettings.model_validate_json(json.dumps(term)))


def _check_scheme(scheme: dict[str, Any]) -> None:
    if scheme["name"] not in plugins.names("scheme") and (successors := _successors(scheme["name"])):
        raise _renamed_scheme(scheme, successors)
    for model in models_in(plugins.load("scheme", scheme["name"]).parse(SchemeSettings(**scheme))):
        check_name(model.model)


def _successors(name: str) -> list[str]:
    """The schemes that a scheme of an earlier version has become."""
    return [each for each, scheme in plugins.load_all("scheme").items() if scheme.formerly == name]


def _renamed_scheme(scheme: dict[str, Any], names: Sequence[str]) -> UsageError:
    kind = scheme.get("kind", names[0])
    return UsageError(
        f"the scheme {scheme['name']!r} is now one scheme per kind",
        found=f"kind: {scheme['kind']}" if "kind" in scheme else None,
        allowed=", ".join(names),
        hint=f"write scheme: {kind}, or {{name: {kind}, …}} with its parameters" if kind in names else None,
    )
