"""dkd, dist, nkd, wttm and standardized logits against their definitions, written with loops over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distillation.methods._logits import standardized
from edgekd.distillation.methods.cross_entropy import cross_entropy
from edgekd.distillation.methods.dist import dist
from edgekd.distillation.methods.dkd import dkd
from edgekd.distillation.methods.kd import kd
from edgekd.distillation.methods.mse import mse
from edgekd.distillation.methods.nkd import nkd
from edgekd.distillation.methods.wttm import wttm


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    student, teacher = (2 * torch.randn(7, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(4, (7,), generator=generator)


def _softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row)
    return powers / powers.sum()


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def _row_dkd(s: np.ndarray, t: np.ndarray, y: int) -> float:
    p_s, p_t = _softmax(s / 3), _softmax(t / 3)
    others = [c for c in range(len(s)) if c != y]
    target = _kl(np.array([p_t[y], p_t[others].sum()]), np.array([p_s[y], p_s[others].sum()]))
    return 9 * (0.5 * target + 2 * _kl(p_t[others] / p_t[others].sum(), p_s[others] / p_s[others].sum()))


def _row_nkd(s: np.ndarray, t: np.ndarray, y: int) -> float:
    others = [c for c in range(len(s)) if c != y]
    soft_s, soft_t = _softmax(s[others] / 3), _softmax(t[others] / 3)
    return -_softmax(t)[y] * np.log(_softmax(s)[y]) - 0.7 * 9 * (soft_t * np.log(soft_s)).sum()


def _row_wttm(s: np.ndarray, t: np.ndarray, y: int) -> float:
    powers = _softmax(t) ** 0.3
    return powers.sum() * _kl(powers / powers.sum(), _softmax(s))


@pytest.mark.parametrize(
    ("method", "settings", "by_row"),
    [
        (dkd, {"alpha": 0.5, "beta": 2.0, "temperature": 3.0}, _row_dkd),
        (nkd, {"gamma": 0.7, "temperature": 3.0}, _row_nkd),
        (wttm, {"gamma": 0.3}, _row_wttm),
    ],
)
def test_values_and_gradients_by_row(logits, method, settings, by_row):
    student, teacher, targets = logits
    student.requires_grad_()
    loss = method(student, teacher, targets, **settings)
    loss.backward()
    s, t, y = student.detach().numpy(), teacher.numpy(), targets.tolist()

    def mean(z: np.ndarray) -> float:
        return float(np.mean([by_row(z[i], t[i], y[i]) for i in range(len(y))]))

    assert loss.item() == pytest.approx(mean(s), rel=1e-12)
    np.testing.assert_allclose(student.grad.numpy(), _slopes(mean, s), atol=1e-8)


def _slopes(function, z: np.ndarray) -> np.ndarray:
    """Central differences."""
    slopes = np.zeros_like(z)
    for place in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-5
        slopes[place] = (function(z + step) - function(z - step)) / 2e-5
    return slopes


def test_dist_against_numpys_correlation(logits):
    student, teacher, _ = logits
    t = np.stack([_softmax(row / 2) for row in teacher.numpy()])

    def value(z: np.ndarray) -> float:
        s = np.stack([_softmax(row / 2) for row in z])
        rows = np.mean([np.corrcoef(s[i], t[i])[0, 1] for i in range(7)])
        columns = np.mean([np.corrcoef(s[:, c], t[:, c])[0, 1] for c in range(4)])
        return 4 * (3 * (1 - rows) + 0.5 * (1 - columns))

    student.requires_grad_()
    loss = dist(student, teacher, beta=3.0, gamma=0.5, temperature=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(value(student.detach().numpy()), rel=1e-6)
    np.testing.assert_allclose(student.grad.numpy(), _slopes(value, student.detach().numpy()), atol=1e-6)


def test_dkd_by_hand_on_two_classes():
    # No second class besides the label, so T^2 alpha KL((2/3, 1/3) || (1/2, 1/2)) is all.
    teacher = torch.tensor([[2 * math.log(2.0), 0.0]], dtype=torch.float64)
    expected = 4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    found = dkd(torch.zeros(1, 2, dtype=torch.float64), teacher, torch.tensor([0]), temperature=2.0)
    assert found.item() == pytest.approx(expected)


def test_kd_is_dkd_with_the_teachers_doubt_as_beta(logits):
    student, teacher, targets = logits
    for s, t, y in zip(student.split(1), teacher.split(1), targets.split(1), strict=True):
        doubt = 1 - (t / 4).softmax(1)[0, y].item()
        assert dkd(s, t, y, beta=doubt).item() == pytest.approx(kd(s, t).item(), rel=1e-12)


def test_dkd_keeps_its_value_where_the_label_is_certain_or_hopeless():
    # z = 400 and 0, 0 at T = 1: p[y] rounds to 1, but log(1 - p[y]) = log 2 - 400; teacher of equal logits.
    student, teacher = torch.tensor([[400.0, 0.0, 0.0]], requires_grad=True), torch.zeros(1, 3)
    loss = dkd(student, teacher, torch.tensor([0]), temperature=1.0)
    expected = 1 / 3 * math.log(1 / 3) + 2 / 3 * (math.log(2 / 3) - (math.log(2) - 400))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    torch.testing.assert_close(student.grad, torch.tensor([[2 / 3, -1 / 3, -1 / 3]]))
    # The label's logit far below -1000: subtracting 1000 from it would no longer hide anything.
    student, teacher = torch.tensor([[3000.0, 0.0, 1.0]]), torch.tensor([[-3000.0, 1.0, 0.0]])
    others = kd(student[:, 1:], teacher[:, 1:], temperature=1.0).item()
    found = dkd(student, teacher, torch.tensor([0]), alpha=0.0, beta=1.0, temperature=1.0).item()
    assert found == pytest.approx(others, rel=1e-6)


def test_nkd_by_hand_and_its_others_are_at_rest_at_equality(logits):
    # p = (1/2, 1/4, 1/4) for both: 1/2 log 2 for the label, 1.5 log 2 for the others.
    z = torch.tensor([[math.log(2.0), 0.0, 0.0]], dtype=torch.float64)
    assert nkd(z, z, torch.tensor([0])).item() == pytest.approx(2 * math.log(2))
    student, _, targets = logits
    student.requires_grad_()
    whole = torch.autograd.grad(nkd(student, student, targets, temperature=2.0), student)[0]
    trust = student.detach().softmax(1).gather(1, targets[:, None])
    probability = student.detach().softmax(1)
    label = torch.nn.functional.one_hot(targets, 4)
    torch.testing.assert_close(whole, trust * (probability - label) / 7)


@pytest.mark.parametrize("method", [nkd, dkd])
def test_labels_are_needed(method):
    with pytest.raises(ValueError, match=f"{method.__name__} needs the labels"):
        method(torch.zeros(1, 2), torch.zeros(1, 2))


def test_wttm_with_power_one_is_kd_and_is_least_at_the_softened_teacher(logits):
    student, teacher, _ = logits
    assert wttm(student, teacher, gamma=1.0).item() == pytest.approx(kd(student, teacher, temperature=1.0).item())
    assert wttm(0.2 * teacher, teacher, gamma=0.2).item() == pytest.approx(0.0, abs=1e-14)


def test_dist_sees_a_linear_change_of_probabilities_as_none(logits):
    _, teacher, _ = logits
    p = teacher.softmax(1)
    student = (0.3 * p + 0.7 / 4).log()
    assert dist(student, teacher, temperature=1.0).item() == pytest.approx(0.0, abs=1e-5)
    assert kd(student, teacher, temperature=1.0) > 0.01


def test_dist_has_no_columns_in_a_batch_of_one_and_nothing_in_one_class(logits):
    student, teacher, _ = logits
    one = student[:1].clone().requires_grad_()
    columns = dist(one, teacher[:1], beta=0.0)
    columns.backward()
    assert columns.item() == 0.0 and not one.grad.any()
    assert dist(one, teacher[:1]).item() == pytest.approx(dist(one, teacher[:1], gamma=0.0).item())
    single = student[:, :1].clone().requires_grad_()
    loss = dist(single, teacher[:, :1])
    loss.backward()
    assert loss.item() == 0.0 and not single.grad.any()


def test_a_student_that_says_nothing_gets_no_wild_gradient_from_dist(logits):
    flat = torch.zeros(7, 4).requires_grad_()
    loss = dist(flat, logits[1].float(), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2.0) and not flat.grad.any()


def test_standardized_rows_by_hand():
    # Mean 2, unbiased spread 1.
    z = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, 0.0, 1.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(standardized(z), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("rows", [torch.full((2, 3), 0.1), torch.tensor([[5.0], [7.0]])])
def test_rows_without_spread_are_standardized_to_zeros_without_gradient(rows):
    rows = rows.clone().requires_grad_()
    standard = standardized(rows)
    (standard * torch.arange(1.0, 1.0 + rows.shape[1])).sum().backward()
    assert not standard.any() and not rows.grad.any()


def test_a_spread_whose_square_is_zero_in_single_precision_has_a_finite_gradient():
    rows = torch.tensor([[0.0, 1e-25, 0.0]], requires_grad=True)
    standardized(rows)[0, 1].backward()
    assert rows.grad.isfinite().all()


def test_a_standardized_loss_is_the_loss_of_standardized_logits(logits):
    student, teacher, targets = logits
    s, t = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (student, teacher))
    for method in (kd, mse, dkd, dist, nkd, wttm, cross_entropy):
        found = method(student, teacher, targets, standardize=True).item()
        assert found == pytest.approx(method(s, t, targets).item(), rel=1e-12)
