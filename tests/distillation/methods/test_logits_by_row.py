"""Losses on logits against their definitions, written with loops over samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import slopes, softmax

from edgekd.distillation.methods.cross_entropy import cross_entropy
from edgekd.distillation.methods.dist import dist
from edgekd.distillation.methods.dkd import dkd
from edgekd.distillation.methods.kd import kd
from edgekd.distillation.methods.mse import mse
from edgekd.distillation.methods.nkd import nkd
from edgekd.distillation.methods.wttm import wttm


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def _row_dkd(s: np.ndarray, t: np.ndarray, y: int) -> float:
    p_s, p_t = softmax(s / 3), softmax(t / 3)
    others = [c for c in range(len(s)) if c != y]
    target = _kl(np.array([p_t[y], p_t[others].sum()]), np.array([p_s[y], p_s[others].sum()]))
    return 9 * (0.5 * target + 2 * _kl(p_t[others] / p_t[others].sum(), p_s[others] / p_s[others].sum()))


def _row_nkd(s: np.ndarray, t: np.ndarray, y: int) -> float:
    others = [c for c in range(len(s)) if c != y]
    soft_s, soft_t = softmax(s[others] / 3), softmax(t[others] / 3)
    return -softmax(t)[y] * np.log(softmax(s)[y]) - 0.7 * 9 * (soft_t * np.log(soft_s)).sum()


def _row_wttm(s: np.ndarray, t: np.ndarray, y: int) -> float:
    powers = softmax(t) ** 0.3
    return powers.sum() * _kl(powers / powers.sum(), softmax(s))


@pytest.mark.parametrize(
    ("method", "settings", "by_row"),
    [
        (dkd, {"alpha": 0.5, "beta": 2.0, "temperature": 3.0}, _row_dkd),
        (nkd, {"gamma": 0.7, "temperature": 3.0}, _row_nkd),
        (wttm, {"gamma": 0.3}, _row_wttm),
    ],
)
def test_values_and_gradients_by_row(seven_rows, method, settings, by_row):
    student, teacher, targets = seven_rows
    student.requires_grad_()
    loss = method(student, teacher, targets, **settings)
    loss.backward()
    s, t, y = student.detach().numpy(), teacher.numpy(), targets.tolist()

    def mean(z: np.ndarray) -> float:
        return float(np.mean([by_row(z[i], t[i], y[i]) for i in range(len(y))]))

    assert loss.item() == pytest.approx(mean(s), rel=1e-12)
    np.testing.assert_allclose(student.grad.numpy(), slopes(mean, s), atol=1e-8)


@pytest.mark.parametrize("method", [nkd, dkd])
def test_labels_are_needed(method):
    with pytest.raises(ValueError, match=f"{method.__name__} needs the labels"):
        method(torch.zeros(1, 2), torch.zeros(1, 2))


def test_a_standardized_loss_is_the_loss_of_standardized_logits(seven_rows):
    student, teacher, targets = seven_rows
    s, t = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (student, teacher))
    for method in (kd, mse, dkd, dist, nkd, wttm, cross_entropy):
        found = method(student, teacher, targets, standardize=True).item()
        assert found == pytest.approx(method(s, t, targets).item(), rel=1e-12)
