from __future__ import annotations

import json

from edgekd.recipe import schema as recipe_schema


def test_the_schema_knows_each_methods_parameters():
    schema = recipe_schema.json_schema()
    terms = {term["title"]: term for term in schema["$defs"]["TermSettings"]["oneOf"]}
    common = {"method", "weight", "warmup_epochs"}
    assert common | {"temperature", "alpha", "standardize"} == set(terms["interpolated"]["properties"])
    assert common | {"student_layers", "teacher_layers"} == set(terms["attention"]["properties"])
    assert terms["kd"]["properties"]["temperature"]["exclusiveMinimum"] == 0
    json.dumps(schema)
