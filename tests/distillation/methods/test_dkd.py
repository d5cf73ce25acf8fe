"""dkd against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.methods.dkd import dkd
from edgekd.distillation.methods.kd import kd


def test_dkd_by_hand_on_two_classes():
    # No second class besides the label, so T^2 alpha KL((2/3, 1/3) || (1/2, 1/2)) is all.
    teacher = torch.tensor([[2 * math.log(2.0), 0.0]], dtype=torch.float64)
    expected = 4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    found = dkd(torch.zeros(1, 2, dtype=torch.float64), teacher, torch.tensor([0]), temperature=2.0)
    assert found.item() == pytest.approx(expected)


def test_kd_is_dkd_with_beta_one_minus_the_teachers_probability_of_the_label(seven_rows):
    student, teacher, targets = seven_rows
    for s, t, y in zip(student.split(1), teacher.split(1), targets.split(1), strict=True):
        uncertainty = 1 - (t / 4).softmax(1)[0, y].item()
        assert dkd(s, t, y, beta=uncertainty).item() == pytest.approx(kd(s, t).item(), rel=1e-12)


def test_dkd_keeps_its_value_where_the_labels_probability_is_near_one_or_zero():
    # z = 400 and 0, 0 at T = 1: p[y] rounds to 1, but log(1 - p[y]) = log 2 - 400; teacher of equal logits.
    student, teacher = torch.tensor([[400.0, 0.0, 0.0]], requires_grad=True), torch.zeros(1, 3)
    loss = dkd(student, teacher, torch.tensor([0]), temperature=1.0)
    expected = 1 / 3 * math.log(1 / 3) + 2 / 3 * (math.log(2 / 3) - (math.log(2) - 400))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    torch.testing.assert_close(student.grad, torch.tensor([[2 / 3, -1 / 3, -1 / 3]]))
    # The label's logit far below -1000: subtracting 1000 from it would no longer hide anything.
    student, teacher = torch.tensor([[3000.0, 0.0, 1.0]]), torch.tensor([[-3000.0, 1.0, 0.0]])
    others = kd(student[:, 1:], teacher[:, 1:], temperature=1.0).item()
    found = dkd(student, teacher, torch.tensor([0]), alpha=0.0, beta=1.0, temperature=1.0).item()
    assert found == pytest.approx(others, rel=1e-6)
