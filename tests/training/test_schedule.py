from __future__ import annotations

import math

import pytest

from edgekd.recipe.settings import DistillSettings, PruneSettings, QuantizeSettings, TrainSettings
from edgekd.training.schedule import learning_rate, peak_rate


def test_the_schedule_by_hand():
    rates = [learning_rate(step, peak=1.0, total=12, warmup=2) for step in range(13)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.2)))
    assert rates[12] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("settings", "batch_size", "rate"),
    [
        (TrainSettings(), 128, 0.1),
        (TrainSettings(), 512, 0.1),
        (TrainSettings(), 16, 0.0125),
        (TrainSettings(learning_rate=0.3), 16, 0.3),
        (DistillSettings(optimizer="adamw"), 64, 0.0005),
        (PruneSettings(), 32, 0.005),
        (QuantizeSettings(), 128, 0.001),
    ],
)
def test_the_default_peak_is_in_proportion_to_the_batch_up_to_the_usual_one(settings, batch_size, rate):
    assert peak_rate(settings, batch_size) == rate
