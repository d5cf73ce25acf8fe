"""cross_entropy by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distillation.methods.cross_entropy import cross_entropy


def test_cross_entropy_with_smoothing_by_hand():
    # Target (1 - e + e/2, e/2) = (0.9, 0.1) at e = 0.2 on probabilities (3/4, 1/4).
    student = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert cross_entropy(student, targets=torch.tensor([0]), label_smoothing=0.2).item() == pytest.approx(expected)


def test_cross_entropy_needs_labels():
    with pytest.raises(ValueError, match="cross_entropy needs the labels: pass targets="):
        cross_entropy(torch.zeros(1, 2))


def test_weighted_mean_by_hand():
    # -log p of the labels: log 4 for class 1 (weight 3), log 4/3 for class 0 (weight 1).
    student = torch.tensor([[math.log(3.0), 0.0]] * 2, dtype=torch.float64)
    found = cross_entropy(student, targets=torch.tensor([1, 0]), class_weights=(1.0, 3.0))
    assert found.item() == pytest.approx((3 * math.log(4.0) + math.log(4 / 3)) / 4)
    equal = cross_entropy(student, targets=torch.tensor([1, 0]), class_weights=(2.0, 2.0))
    assert equal.item() == pytest.approx(cross_entropy(student, targets=torch.tensor([1, 0])).item())


def test_auto_is_for_recipes():
    with pytest.raises(ValueError, match="auto is for recipes"):
        cross_entropy(torch.zeros(1, 2), targets=torch.tensor([0]), class_weights="auto")
