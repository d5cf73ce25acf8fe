"""interpolated against its parts."""

from __future__ import annotations

import pytest

from edgekd.distillation.methods.interpolated import interpolated
from edgekd.distillation.methods.mse import mse
from edgekd.distillation.methods.soft_cross_entropy import soft_cross_entropy


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_interpolated_is_the_mixture_of_its_parts(logits, alpha):
    student, teacher, _ = logits
    expected = (1 - alpha) * mse(student, teacher) + alpha * soft_cross_entropy(student, teacher, temperature=2.0)
    found = interpolated(student, teacher, alpha=alpha, temperature=2.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
