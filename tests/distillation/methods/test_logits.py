"""Standardized rows of logits."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.methods._logits import standardized


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
