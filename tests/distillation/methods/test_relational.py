"""relational by hand, and its angles in pieces."""

from __future__ import annotations

import pytest
import torch
from by_hand import angle_loss, normal
from torch import Tensor

from edgekd.distillation.methods import relational as relational_file
from edgekd.distillation.methods.relational import relational


def test_relational_by_hand():
    # On a line 0, 1, 3 the angle at the middle is straight; an equilateral triangle has cosines of ½ and equal sides.
    line = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    triangle = torch.eye(3, dtype=torch.float64)
    distances = 2 * 0.5 * (0.5**2 + 0.0 + 0.5**2) / 9  # (1, 2, 3) / 2 against 1
    angles = 2 * (0.5 * 0.5**2 + (1.5 - 0.5) + 0.5 * 0.5**2) / 27  # 1, −1, 1 against ½
    assert relational(line, triangle).item() == pytest.approx(25 * distances + 50 * angles, rel=1e-12)


def test_angles_in_pieces_change_neither_value_nor_gradient(monkeypatch):
    teacher = normal(7, 4, seed=1)
    found = []
    for vertices in (7, 3, 1):
        monkeypatch.setattr(relational_file, "_PIECE", vertices * 49)
        student = normal(7, 3).requires_grad_()
        loss = relational(student, teacher)
        loss.backward()
        found.append((loss.detach(), student.grad))
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=1e-13, atol=0.0)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize(("batch", "width"), [(24, 8), (16, 200)])
def test_in_single_precision_angles_of_directions_are_those_of_distances(monkeypatch, batch, width, pieces):
    monkeypatch.setattr(relational_file, "_PIECE", 2**20 if pieces == 1 else batch * width * batch // pieces)
    found, offset = [], 50.0 + torch.arange(width)
    for precision in (torch.float32, torch.float64):
        student, teacher = ((normal(batch, width, seed=s).float() + offset).to(precision) for s in (0, 1))
        student.requires_grad_()
        loss = relational_file._relations(student, teacher, 25.0, 50.0)
        loss.backward()
        found.append((loss.item(), student.grad.double()))
    (single, gradient), (double, expected) = found
    assert single == pytest.approx(double, rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=0.0, atol=1e-4 * expected.abs().max().item())


def test_no_angles_are_kept_for_the_gradient():
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        relational(normal(30, 4).requires_grad_(), normal(30, 5, seed=1))
    assert 0 < sum(kept) < 30**3 / 2


def test_angles_of_samples_that_nearly_coincide_are_exact_far_from_the_origin():
    line = torch.tensor([[0.0, 0.0], [2.0**-12, 0.0], [0.0, 2.0**-12], [3.0, 1.0]]) + 1000.0
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    expected = angle_loss(student.double().numpy(), line.double().numpy())
    found = relational(student, line, distance_weight=0.0, angle_weight=1.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)
