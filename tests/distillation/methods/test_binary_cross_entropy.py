"""The labels' term of independent classes."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.methods.binary_cross_entropy import binary_cross_entropy


def test_binary_cross_entropy_by_hand():
    # σ(log 3) = 3/4 for a class that is there, σ(0) = 1/2 for one that is not.
    student = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    targets = torch.tensor([[1, 0]])
    assert binary_cross_entropy(student, targets=targets).item() == pytest.approx(math.log(4 / 3) + math.log(2))
    # Targets 0.9 and 0.1.
    smoothed = 0.9 * math.log(4 / 3) + 0.1 * math.log(4) + math.log(2)
    assert binary_cross_entropy(student, targets=targets, label_smoothing=0.2).item() == pytest.approx(smoothed)
    with pytest.raises(ValueError, match="binary_cross_entropy needs the labels"):
        binary_cross_entropy(student)


def test_its_gradient_is_the_difference_of_probability_and_label(logits):
    student, _, _ = logits
    student.requires_grad_()
    targets = (torch.arange(30).reshape(6, 5) % 3 == 0).long()
    assert torch.autograd.gradcheck(lambda z: binary_cross_entropy(z, targets=targets), (student,))
    binary_cross_entropy(student, targets=targets).backward()
    assert torch.allclose(student.grad, (student.sigmoid() - targets).detach() / 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_at_extreme_logits(dtype):
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = binary_cross_entropy(student, targets=torch.tensor([[0, 1, 1]]))
    loss.backward()
    assert loss.isfinite() and loss.ndim == 0 and student.grad.isfinite().all()
