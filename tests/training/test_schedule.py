from __future__ import annotations

import math

import pytest

from edgekd.training.schedule import learning_rate


def test_the_schedule_by_hand():
    rates = [learning_rate(step, peak=1.0, total=12, warmup=2) for step in range(13)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.2)))
    assert rates[12] == pytest.approx(0.0)
