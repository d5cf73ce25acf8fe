"""nkd against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.methods.nkd import nkd


def test_nkd_by_hand_and_the_others_have_no_gradient_at_equality(seven_rows):
    # p = (1/2, 1/4, 1/4) for both: 1/2 log 2 for the label, 1.5 log 2 for the others.
    z = torch.tensor([[math.log(2.0), 0.0, 0.0]], dtype=torch.float64)
    assert nkd(z, z, torch.tensor([0])).item() == pytest.approx(2 * math.log(2))
    student, _, targets = seven_rows
    student.requires_grad_()
    whole = torch.autograd.grad(nkd(student, student, targets, temperature=2.0), student)[0]
    trust = student.detach().softmax(1).gather(1, targets[:, None])
    probability = student.detach().softmax(1)
    label = torch.nn.functional.one_hot(targets, 4)
    torch.testing.assert_close(whole, trust * (probability - label) / 7)
