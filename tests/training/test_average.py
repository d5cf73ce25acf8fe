from __future__ import annotations

import pytest
from torch import nn

from edgekd.training.average import Average


def test_the_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(model, step=0)  # decay (1 + 0) / (10 + 0)
    average.update(model, step=1000)  # decay 0.5
    assert average.network.weight.item() == pytest.approx(0.9 + 0.5 * 0.1)
