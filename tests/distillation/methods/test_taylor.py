"""taylor by hand, and on maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distillation.methods.taylor import Taylor, taylor

STUDENT = [(3, 6, 10), (4, 3, 5), (5, 1, 2)]
TEACHER = [(4, 8, 8), (4, 4, 4), (6, 2, 2)]


def _maps(shapes: list[tuple[int, ...]], *, batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def test_taylor_by_hand_and_its_gradient():
    student = torch.tensor([[3.0, 1.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.0, 2.0], [0.0, 2.0]], dtype=torch.float64)
    loss = taylor(student, teacher, penalty=0.1)
    assert loss.item() == pytest.approx(((0.5 * 5 + 0.1 * 10) + 0.5 * 4) / 2)
    (gradient,) = torch.autograd.grad(loss, student)
    np.testing.assert_allclose(gradient, ((student - teacher + 0.2 * student) / 2).detach(), atol=1e-14)


def test_taylor_reads_a_map_by_its_mean_and_sums_over_stages():
    students, teachers = _maps(STUDENT), _maps(TEACHER)
    method = Taylor(STUDENT, TEACHER, penalty=0.2).double()
    target, expected = teachers[-1].numpy().mean((2, 3)), 0.0
    for layer, feature in zip(method.projections, students, strict=True):
        read = feature.numpy().mean((2, 3)) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        expected += sum(0.5 * np.sum((read[b] - target[b]) ** 2) + 0.2 * np.sum(read[b] ** 2) for b in range(2)) / 2
    assert method(students, teachers).item() == pytest.approx(expected, rel=1e-12)
