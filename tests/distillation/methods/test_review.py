"""review by hand, and its fusion of maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distillation.methods.review import Review, review

STUDENT = [(3, 6, 10), (4, 3, 5), (5, 1, 2)]
TEACHER = [(4, 8, 8), (4, 4, 4), (6, 2, 2)]


def _maps(shapes: list[tuple[int, ...]], *, batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def test_review_by_hand():
    # A map of 2x1 with errors 1 and 3: levels 2x1 and 1, (5 + 1/2 * 4) / (3/2).
    student = torch.tensor([[[[1.0], [3.0]]]])
    assert review([student], [torch.zeros_like(student)]).item() == pytest.approx(14 / 3)


def test_review_mixes_each_map_with_the_deeper_one_by_two_weights_per_position():
    students = _maps(STUDENT)
    method = Review(STUDENT, TEACHER).double().eval()
    carried = method.fusions[2](students[2], None, (1, 2))[1]
    made, mixed = method.fusions[1](students[1], carried, (3, 5))
    assert made.shape == (2, 4, 3, 5)
    layers = method.fusions[1]
    own, deep = layers.enter(students[1]).detach().numpy(), carried.detach().numpy()
    weight, bias = layers.attention[0].weight.detach().numpy()[:, :, 0, 0], layers.attention[0].bias.detach().numpy()
    for i in range(3):
        for j in range(5):
            # The deeper map is 1x2: its nearest position.
            x, y = own[:, :, i, j], deep[:, :, 0, j * 2 // 5]
            shares = 1 / (1 + np.exp(-(np.concatenate([x, y], 1) @ weight.T + bias)))
            np.testing.assert_allclose(mixed[:, :, i, j].detach(), x * shares[:, :1] + y * shares[:, 1:], rtol=1e-10)
