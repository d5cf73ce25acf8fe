"""flow by hand, and what it does not see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.distillation.methods.flow import flow


def _maps(shapes: list[tuple[int, ...]], *, batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def test_flow_by_hand():
    # G = 1/2 (1*2 + 3*4) = 7 for the student, 0 for the teacher.
    first, second = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 4.0]]]])
    assert flow([first, second], [first * 0, second]).item() == 49.0


def test_flow_does_not_depend_on_positions():
    maps, teachers = _maps([(3, 4, 5), (2, 4, 5)]), _maps([(3, 6, 6), (2, 3, 3)], seed=1)
    positions = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    moved = [m.flatten(2)[:, :, positions].reshape(m.shape) for m in maps]
    assert flow(moved, teachers).item() == pytest.approx(flow(maps, teachers).item(), rel=1e-12)


def test_flow_keeps_single_precision_under_autocast():
    students, teachers = ([m.float() for m in _maps([(3, 4, 4), (3, 4, 4)], seed=seed)] for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = flow(students, teachers)
    assert inside.item() == flow(students, teachers).item()
