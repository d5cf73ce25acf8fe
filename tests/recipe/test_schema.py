from __future__ import annotations

import json

from pydantic import BaseModel

from edgekd.recipe import schema as recipe_schema


def test_the_schema_knows_each_methods_parameters():
    schema = recipe_schema.json_schema()
    terms = {term["title"]: term for term in schema["$defs"]["TermSettings"]["oneOf"]}
    common = {"method", "weight", "warmup_epochs"}
    assert common | {"temperature", "alpha", "standardize"} == set(terms["interpolated"]["properties"])
    assert common | {"student_layers", "teacher_layers"} == set(terms["attention"]["properties"])
    assert terms["kd"]["properties"]["temperature"]["minimum"] == 0.001
    json.dumps(schema)


def test_every_setting_is_described():
    from edgekd.recipe import settings

    models = [each for each in vars(settings).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    silent = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if model.__module__.startswith("edgekd.recipe.") and not field.description
    ]
    assert len(models) > 10 and silent == []
