from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import UnknownNameError
from edgekd.recipe.mentions import mentions
from edgekd.recipe.settings import DeviceName, RecipeSettings, RecoverySettings, Settings, VariantName


def found(value: dict[str, Any], model: type[Settings] = RecipeSettings) -> dict[str, str]:
    return {".".join(map(str, mention.location)): mention.name for mention in mentions(value, model)}


def test_every_name_of_a_recipe_has_its_place() -> None:
    recipe = {
        "data": {"source": "digits"},
        "teacher": {"model": "cifar/resnet8"},
        "student": {"model": "cifar/resnet8"},
        "distill": {"scheme": "online", "objective": [{"method": "kd"}, {"method": "mse"}]},
        "prune": {"device": "raspberry-pi-5", "objective": [{"method": "dkd"}]},
        "export": {"variants": ["fp32", "fp16"], "tolerance": {"int8": {"difference": 0.1}}},
        "bench": {"devices": ["this-machine"]},
    }
    assert found(recipe) == {
        "data.source": "digits",
        "teacher.model": "cifar/resnet8",
        "student.model": "cifar/resnet8",
        "distill.scheme.name": "online",
        "distill.objective.0.method": "kd",
        "distill.objective.1.method": "mse",
        "prune.device": "raspberry-pi-5",
        "prune.objective.0.method": "dkd",
        "export.variants.0": "fp32",
        "export.variants.1": "fp16",
        "export.tolerance.int8": "int8",
        "bench.devices.0": "this-machine",
    }


@pytest.mark.parametrize(
    "value",
    [{"data": 3}, {"data": {"source": 3}}, {"distill": {"objective": {"method": "kd"}}}, {"export": {"variants": [1]}}],
)
def test_values_of_another_shape_are_left_to_pydantic(value: dict[str, Any]) -> None:
    assert found(value) == {}


class Section(RecoverySettings):
    """A section of somebody else's stage."""

    board: DeviceName = "this-machine"
    forms: tuple[VariantName, ...] | None = None


class Own(RecipeSettings):
    section: Section | None = None


def test_a_section_from_outside_needs_no_entry_anywhere() -> None:
    value = {"section": {"board": "jetsen", "forms": ["fp32"], "objective": [{"method": "kdd"}]}}
    assert found(value, Own) == {
        "section.board": "jetsen",
        "section.forms.0": "fp32",
        "section.objective.0.method": "kdd",
    }
    for mention in mentions(value, Own):
        if mention.name == "fp32":
            mention.check()
        else:
            with pytest.raises(UnknownNameError, match=mention.name):
                mention.check()
