"""wttm against its definition."""

from __future__ import annotations

import pytest

from edgekd.distillation.methods.kd import kd
from edgekd.distillation.methods.wttm import wttm


def test_wttm_with_power_one_is_kd_and_is_smallest_at_the_softened_teacher(seven_rows):
    student, teacher, _ = seven_rows
    assert wttm(student, teacher, gamma=1.0).item() == pytest.approx(kd(student, teacher, temperature=1.0).item())
    assert wttm(0.2 * teacher, teacher, gamma=0.2).item() == pytest.approx(0.0, abs=1e-14)
