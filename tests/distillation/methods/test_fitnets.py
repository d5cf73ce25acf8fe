"""fitnets and its regressor against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import normal
from torch import nn

from edgekd.distillation.methods.fitnets import Fitnets, fitnets


def test_fitnets_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert fitnets(student, teacher).item() == pytest.approx((1 + 4 + 9) / 4)


def test_fitnets_averages_maps_down_to_the_smaller_height_and_the_smaller_width():
    student, teacher = normal(2, 3, 4, 2), normal(2, 3, 2, 6, seed=1)
    small_s = student.numpy().reshape(2, 3, 2, 2, 2).mean(3)
    small_t = teacher.numpy().reshape(2, 3, 2, 2, 3).mean(4)
    assert fitnets(student, teacher).item() == pytest.approx(((small_s - small_t) ** 2).mean(), rel=1e-12)


def test_fitnets_does_not_spread_one_channel_over_many():
    with pytest.raises(ValueError, match="equal channels, not 1 of the student and 3 of the teacher; use Fitnets"):
        fitnets(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4))


def test_fitnets_regressor_against_numpy():
    adapter = Fitnets((3, 4, 5), (2, 7, 4, 5)).double()
    student, teacher = normal(2, 3, 4, 5), normal(2, 7, 4, 5, seed=1)
    weight, bias = (p.detach().numpy() for p in adapter.parameters())
    adapted = np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], student.numpy()) + bias[:, None, None]
    assert adapter(student, teacher).item() == pytest.approx(((adapted - teacher.numpy()) ** 2).mean(), rel=1e-12)


def test_an_adapter_takes_whatever_precision_the_networks_compute_in():
    adapter: nn.Module = Fitnets((3, 4, 4), (5, 4, 4))
    features = normal(2, 3, 4, 4), normal(2, 5, 4, 4)
    exact = adapter(*features).item()
    assert adapter(*(f.bfloat16() for f in features)).item() == pytest.approx(exact, rel=0.02)
