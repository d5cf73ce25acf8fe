"""mse by its definition."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.methods.mse import mse


def test_mse_sums_over_classes_and_its_zero_mean_form_ignores_a_shift(logits):
    student, teacher, _ = logits
    assert mse(student, teacher).item() == pytest.approx(((student - teacher) ** 2).sum().item() / 6)
    shifted = teacher + torch.arange(6, dtype=torch.float64)[:, None]
    centred = mse(student, teacher, zero_mean=True).item()
    assert mse(student, shifted, zero_mean=True).item() == pytest.approx(centred)
    assert mse(student, shifted).item() != pytest.approx(mse(student, teacher).item())
