"""The schedule of quantization-aware distillation, and where it comes from."""

from __future__ import annotations

import pytest

from edgekd.recipe.load import from_mapping
from edgekd.stages._qad import schedule, schedule_facts

RECIPE = {
    "name": "shoes",
    "data": {"source": "digits", "image_size": 32},
    "teacher": {"model": "cifar/resnet20", "train": {"epochs": 2}},
    "student": {"model": "torchvision/mobilenet_v3_small"},
}


@pytest.mark.parametrize(
    ("distill", "quantize", "facts"),
    [
        (
            {"epochs": 60, "learning_rate": 0.05},
            {},
            [
                "6 epochs (a tenth of distill's 60)",
                "peak learning rate 0.0005 (a hundredth of distill's 0.05)",
                "scales calibrated",
            ],
        ),
        (
            {"epochs": 14},
            {"scales": "learned"},
            [
                "2 epochs (a tenth of distill's 14, but at least 2)",
                "peak learning rate 0.001 (a hundredth of distill's 0.1)",
                "scales learned",
            ],
        ),
        (
            {"epochs": 100, "optimizer": "adamw"},
            {"epochs": 1, "learning_rate": 0.002},
            [
                "1 epoch (from the recipe; distill has 100)",
                "peak learning rate 0.002 (from the recipe; distill has 0.001)",
                "scales calibrated",
            ],
        ),
        (
            {"epochs": 20, "batch_size": 128},
            {"batch_size": 64},
            [
                "2 epochs (a tenth of distill's 20)",
                "peak learning rate 0.0005 (a hundredth of distill's 0.05)",
                "scales calibrated",
            ],
        ),
    ],
)
def test_what_the_recipe_does_not_set_is_a_fraction_of_its_distill_section(distill, quantize, facts):
    settings = from_mapping({**RECIPE, "distill": distill, "quantize": quantize}).settings
    assert settings.quantize is not None
    assert schedule_facts(schedule(settings.quantize, settings.distill, 5000)) == facts
