"""Logits that the tests of several losses share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
    """(6, 5) of a student and a teacher in double precision, and labels."""
    generator = torch.Generator().manual_seed(7)
    student, teacher = (3 * torch.randn(6, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(5, (6,), generator=generator)


@pytest.fixture
def seven_rows() -> tuple[Tensor, Tensor, Tensor]:
    """The same, (7, 4)."""
    generator = torch.Generator().manual_seed(11)
    student, teacher = (2 * torch.randn(7, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(4, (7,), generator=generator)
