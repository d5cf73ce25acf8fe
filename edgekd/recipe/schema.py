"""The recipe's JSON schema, for editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from edgekd import plugins
from edgekd.recipe import methods
from edgekd.recipe.settings import RecipeSettings


def json_schema() -> dict[str, Any]:
    """The recipe's JSON schema, for editors.

    Returns:
        A JSON schema (2020-12) with the names and parameters of all methods, schemes, sources and variants.

    Raises:
        PluginError: a broken plugin of edgekd's own.
    """
    schema = RecipeSettings.model_json_schema()
    common = schema["$defs"]["TermSettings"]["properties"]
    on_logits = {name: key for name, key in common.items() if not name.endswith("_layers")}
    schema["$defs"]["TermSettings"] = {
        "oneOf": [
            {
                "type": "object",
                "title": method,
                "properties": {
                    **(common if methods.load(method).on_features else on_logits),
                    **methods.load(method).parameter_model.model_json_schema().get("properties", {}),
                    "method": {"const": method},
                },
                "required": ["method"],
                "additionalProperties": False,
            }
            for method in plugins.load_all("method")
        ]
    }
    schemes = plugins.load_all("scheme")
    schema["$defs"]["SchemeSettings"] = {
        "oneOf": [
            {"enum": list(schemes)},
            *({**_scheme_schema(schema, name), "title": name} for name in schemes),
        ]
    }
    schema["$defs"]["DataSettings"] = {"oneOf": [_source_schema(schema, name) for name in plugins.load_all("source")]}
    variants = list(plugins.names("variant"))
    export = schema["$defs"]["ExportSettings"]["properties"]
    for option in export["variants"]["anyOf"]:
        if option["type"] == "array":
            option["items"] = {"enum": variants}
    export["tolerance"]["propertyNames"] = {"enum": variants}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _source_schema(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a data section with one source: its own options, and what it uses of the others."""
    source = plugins.load("source", name)
    own = _with_shared_definitions(schema, source.settings)
    properties = {key: value for key, value in own["properties"].items() if key not in source.unused}
    return {**own, "title": name, "properties": {**properties, "source": {"const": name}}}


def _scheme_schema(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a scheme's name and parameters."""
    own = _with_shared_definitions(schema, plugins.load("scheme", name).parameters)
    properties = {"name": {"const": name}, **own.get("properties", {})}
    return {**own, "properties": properties, "required": ["name", *own.get("required", [])]}


def _with_shared_definitions(schema: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a plugin's model; definitions that it shares with others are moved to `schema`."""
    own = model.model_json_schema()
    for key, definition in own.pop("$defs", {}).items():
        schema["$defs"].setdefault(key, definition)
    return own
