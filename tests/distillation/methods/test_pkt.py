"""pkt by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.methods.pkt import pkt


def test_pkt_by_hand():
    # The student's samples are alike: Q = (½, ½). The teacher's are at right angles: P = (2/3, 1/3).
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    found = pkt(torch.ones(2, 3, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-12)
