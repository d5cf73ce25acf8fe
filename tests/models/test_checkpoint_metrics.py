from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edgekd.models.checkpoint_metrics import CheckpointMetrics

LEAST = {"parameters": 12, "macs": 34}


def _read(changes: dict[str, Any]) -> CheckpointMetrics:
    return CheckpointMetrics.model_validate_json(json.dumps({**LEAST, **changes}))


def test_what_is_read_has_its_type_and_what_else_was_measured_may_be_anything() -> None:
    history = [{"epoch": 1, "loss": 0.5, "terms": {"kd": 0.1}}]
    found = _read({"history": history, "of_mine": {"a": [1]}})
    assert found.history[0].loss == 0.5 and found.model_extra == {"of_mine": {"a": [1]}}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"parameters": "many"}, ("parameters",)),
        ({"macs": -1}, ("macs",)),
        ({"history": [{"epoch": 1, "loss": "low"}]}, ("history", 0, "loss")),
        ({"validation_accuracy": 1.5}, ("validation_accuracy",)),
        ({"measure": "weight"}, ("measure",)),
        ({"multiple": 0}, ("multiple",)),
        ({"widths": [{"layer": "a", "before": 8}]}, ("widths", 0, "after")),
        (
            {"folded": {"convolutions": [3], "norms": [2, 0], "difference": 0.0, "images": 8}},
            ("folded", "convolutions"),
        ),
        ({"warnings": "a word"}, ("warnings",)),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], place: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        _read(changes)
    assert refused.value.errors()[0]["loc"][: len(place)] == place


def test_parameters_and_macs_are_always_there() -> None:
    with pytest.raises(ValidationError, match="macs"):
        CheckpointMetrics.model_validate({"parameters": 12})
