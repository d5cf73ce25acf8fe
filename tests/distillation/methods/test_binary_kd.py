"""Distillation of independent classes."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.method import method_named
from edgekd.distillation.methods.binary_kd import binary_kd
from edgekd.distillation.methods.kd import kd


def test_binary_kd_by_hand():
    # Teacher 2/3 at T = 2, student 1/2: 4 (2/3 ln(4/3) + 1/3 ln(2/3)).
    teacher = torch.tensor([[2 * math.log(2.0)]], dtype=torch.float64)
    expected = 4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert binary_kd(torch.zeros_like(teacher), teacher, temperature=2.0).item() == pytest.approx(expected)


def test_binary_kd_against_torch_distributions(logits):
    student, teacher, _ = logits
    p, q = (torch.distributions.Bernoulli(logits=z / 3.0) for z in (teacher, student))
    expected = 9 * torch.distributions.kl_divergence(p, q).sum(1).mean()
    assert binary_kd(student, teacher, temperature=3.0).item() == pytest.approx(expected.item(), rel=1e-12)


def test_binary_kd_is_kd_of_two_classes_each(logits):
    student, teacher, _ = logits
    pairs = [
        kd(*(torch.stack([z[:, c], torch.zeros(6, dtype=z.dtype)], 1) for z in (student, teacher)), temperature=2.0)
        for c in range(5)
    ]
    assert binary_kd(student, teacher, temperature=2.0).item() == pytest.approx(sum(each.item() for each in pairs))


def test_its_gradient_is_the_difference_of_probabilities_and_none_reaches_the_teacher(logits):
    student, teacher, _ = logits
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: binary_kd(z, teacher.detach(), temperature=2.0), (student,))
    binary_kd(student, teacher).backward()
    assert teacher.grad is None
    assert torch.allclose(student.grad, (student.sigmoid() - teacher.sigmoid()).detach() / 6)
    assert binary_kd(teacher, teacher).item() == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_at_extreme_logits(dtype):
    extreme = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype)
    student = extreme.flip(1).clone().requires_grad_()
    loss = binary_kd(student, extreme)
    loss.backward()
    assert loss.isfinite() and loss.ndim == 0 and student.grad.isfinite().all()


def test_which_methods_suit_independent_classes():
    names = ("kd", "cross_entropy", "dkd", "mse", "attention", "crd")
    suits = {name: method_named(name).suits("multilabel") for name in names}
    assert suits == {"kd": False, "cross_entropy": False, "dkd": False, "mse": True, "attention": True, "crd": True}
    assert all(method_named(name).suits("multilabel") for name in ("binary_kd", "binary_cross_entropy"))
    assert not any(method_named(name).suits("single-label") for name in ("binary_kd", "binary_cross_entropy"))
