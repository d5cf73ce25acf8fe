"""kd against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from by_hand import softmax

from edgekd.distillation.methods.kd import kd


def test_kd_by_hand():
    # Teacher (2/3, 1/3), student (1/2, 1/2) at T = 2: 4 * (2/3 ln(4/3) + 1/3 ln(2/3)).
    teacher = torch.tensor([[2 * math.log(2.0), 0.0]], dtype=torch.float64)
    expected = 4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert kd(torch.zeros(1, 2, dtype=torch.float64), teacher, temperature=2.0).item() == pytest.approx(expected)


def test_kd_against_numpy(logits):
    student, teacher, _ = logits
    p, q = (softmax(z.numpy() / 3.0) for z in (teacher, student))
    expected = 9.0 * (p * np.log(p / q)).sum(1).mean()
    assert kd(student, teacher, temperature=3.0).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_of_kd_is_the_difference_of_probabilities(logits):
    student, teacher, _ = logits
    student.requires_grad_()
    kd(student, teacher, temperature=4.0).backward()
    p, q = (softmax(z.detach().numpy() / 4.0) for z in (teacher, student))
    np.testing.assert_allclose(student.grad.numpy(), 4.0 * (q - p) / 6, rtol=1e-10)
