"""Settings of a training."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.recipe.training_settings import StepSettings, TrainSettings


def test_a_training_on_labels_has_what_any_training_has_and_its_smoothing() -> None:
    assert TrainSettings.model_fields.keys() - StepSettings.model_fields.keys() == {"label_smoothing", "class_weights"}
    assert TrainSettings(epochs=2, class_weights="auto").class_weights == "auto"


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"momentum": 1.0}, {"ema": 1.0}, {"batch_size": 0}, {"seed": -1}])
def test_numbers_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StepSettings.model_validate(wrong)
