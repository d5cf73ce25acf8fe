from __future__ import annotations

from torch import nn

from edgekd.training.norms import raise_momentum


def test_batch_norms_forget_the_start_of_a_short_training_and_long_ones_are_left_alone():
    slow, usual = nn.BatchNorm2d(2, momentum=0.01), nn.BatchNorm2d(2, momentum=0.1)
    model = nn.Sequential(slow, usual)
    raise_momentum(model, steps=100_000)
    assert (slow.momentum, usual.momentum) == (0.01, 0.1)
    raise_momentum(model, steps=400)
    assert (slow.momentum, usual.momentum) == (0.05, 0.1)
    assert (1 - slow.momentum) ** 400 < 1e-8
