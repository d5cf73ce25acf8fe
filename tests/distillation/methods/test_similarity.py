"""similarity by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.methods.similarity import similarity


def test_similarity_by_hand():
    # The student's samples are alike: rows (1, 1)/√2. The teacher's have nothing in common: rows (1, 0), (0, 1).
    expected = 2 * ((1 - math.sqrt(0.5)) ** 2 + 0.5) / 4
    found = similarity(torch.ones(2, 3, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-12)
