"""The recipe's JSON schema, for editors."""

from __future__ import annotations

from typing import Any

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
    schema["$defs"]["DataSettings"]["properties"]["source"]["enum"] = list(plugins.names("source"))
    variants = list(plugins.names("variant"))
    export = schema["$defs"]["ExportSettings"]["properties"]
    for option in export["variants"]["anyOf"]:
        if option["type"] == "array":
            option["items"] = {"enum": variants}
    export["tolerance"]["propertyNames"] = {"enum": variants}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _scheme_schema(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a scheme's name and parameters; definitions that it shares with others are moved to `schema`."""
    own: dict[str, Any] = plugins.load("scheme", name).parameters.model_json_schema()
    for key, definition in own.pop("$defs", {}).items():
        schema["$defs"].setdefault(key, definition)
    properties = {"name": {"const": name}, **own.get("properties", {})}
    return {**own, "properties": properties, "required": ["name", *own.get("required", [])]}
