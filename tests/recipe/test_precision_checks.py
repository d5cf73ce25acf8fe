from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import RecipeError
from edgekd.recipe.load import from_mapping
from edgekd.recipe.precision_checks import int8_warnings

NANO, TX2, ORIN = "jetson-nano-4gb", "jetson-tx2-8gb", "jetson-orin-nano-8gb"
RECIPE: dict[str, Any] = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
    "quantize": {"mode": "ptq"},
}


@pytest.mark.parametrize("devices", [[NANO], [NANO, TX2]])
def test_int8_for_devices_of_which_none_has_it_is_refused_with_its_line(devices: list[str]) -> None:
    told = (
        r"recipe:\d+ quantize: makes int8 graphs(?s:.)*Jetson Nano 4GB computes in fp32, fp16(?s:.)*Remove the section"
    )
    with pytest.raises(RecipeError, match=told):
        from_mapping({**RECIPE, "bench": {"devices": devices}})
    from_mapping({**RECIPE, "quantize": None, "bench": {"devices": devices}})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"bench": {"devices": [ORIN]}}, []),
        ({"bench": {"devices": ["this-machine", NANO]}}, ["Jetson Nano 4GB"]),
        ({"bench": {"devices": [ORIN, NANO, TX2]}}, ["Jetson Nano 4GB", "Jetson TX2 8GB"]),
        ({"prune": {"device": NANO}}, ["Jetson Nano 4GB"]),
        ({"prune": {"device": NANO}, "bench": {"devices": ["this-machine", NANO]}}, ["Jetson Nano 4GB"]),
        ({"quantize": None, "bench": {"devices": ["this-machine", NANO]}}, []),
    ],
)
def test_a_device_without_int8_beside_others_is_warned_about(changes: dict[str, Any], named: list[str]) -> None:
    found = int8_warnings(from_mapping({**RECIPE, **changes}).settings)
    assert [text.partition(" computes in ")[0] for text in found] == named
    assert all("this device has no int8" in text for text in found)
