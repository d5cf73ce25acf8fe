"""dist against NumPy's correlation, and where it has no spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import slopes, softmax

from edgekd.distillation.methods.dist import dist
from edgekd.distillation.methods.kd import kd


def test_dist_against_numpys_correlation(seven_rows):
    student, teacher, _ = seven_rows
    t = np.stack([softmax(row / 2) for row in teacher.numpy()])

    def value(z: np.ndarray) -> float:
        s = np.stack([softmax(row / 2) for row in z])
        rows = np.mean([np.corrcoef(s[i], t[i])[0, 1] for i in range(7)])
        columns = np.mean([np.corrcoef(s[:, c], t[:, c])[0, 1] for c in range(4)])
        return 4 * (3 * (1 - rows) + 0.5 * (1 - columns))

    student.requires_grad_()
    loss = dist(student, teacher, beta=3.0, gamma=0.5, temperature=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(value(student.detach().numpy()), rel=1e-6)
    np.testing.assert_allclose(student.grad.numpy(), slopes(value, student.detach().numpy()), atol=1e-6)


def test_dist_ignores_a_linear_change_of_probabilities(seven_rows):
    _, teacher, _ = seven_rows
    p = teacher.softmax(1)
    student = (0.3 * p + 0.7 / 4).log()
    assert dist(student, teacher, temperature=1.0).item() == pytest.approx(0.0, abs=1e-5)
    assert kd(student, teacher, temperature=1.0) > 0.01


def test_dist_has_no_columns_in_a_batch_of_one_and_nothing_in_one_class(seven_rows):
    student, teacher, _ = seven_rows
    one = student[:1].clone().requires_grad_()
    columns = dist(one, teacher[:1], beta=0.0)
    columns.backward()
    assert columns.item() == 0.0 and not one.grad.any()
    assert dist(one, teacher[:1]).item() == pytest.approx(dist(one, teacher[:1], gamma=0.0).item())
    single = student[:, :1].clone().requires_grad_()
    loss = dist(single, teacher[:, :1])
    loss.backward()
    assert loss.item() == 0.0 and not single.grad.any()


def test_a_constant_student_gets_no_huge_gradient_from_dist(seven_rows):
    flat = torch.zeros(7, 4).requires_grad_()
    loss = dist(flat, seven_rows[1].float(), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2.0) and not flat.grad.any()
