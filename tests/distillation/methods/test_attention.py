"""attention against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from by_hand import normal

from edgekd.distillation.methods.attention import attention


def _attention_by_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        maps = [(feature**2).sum(0) for feature in (s, t)]
        q_s, q_t = (m / math.sqrt((m**2).sum()) for m in maps)
        total += ((q_s - q_t) ** 2).sum()
    return total / (len(student) * student.shape[2] * student.shape[3])


def test_attention_by_hand():
    # Squares (9, 16) and (16, 9), of length √337: the difference of the unit vectors is (−7, 7) / √337.
    student, teacher = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), torch.tensor([4.0, 3.0]).view(1, 1, 1, 2)
    assert attention(student, teacher).item() == pytest.approx(49 / 337)


def test_attention_against_loops_on_maps_that_are_not_square():
    student, teacher = normal(4, 3, 2, 5), normal(4, 6, 2, 5, seed=1)
    expected = _attention_by_loops(student.numpy(), teacher.numpy())
    assert attention(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_attention_does_not_see_a_samples_scale():
    student, teacher = normal(4, 3, 4, 4), normal(4, 3, 4, 4, seed=1)
    scales = torch.tensor([0.1, 2.0, 30.0, 1e-6], dtype=torch.float64).view(4, 1, 1, 1)
    assert attention(scales * student, teacher).item() == pytest.approx(attention(student, teacher).item(), rel=1e-12)
    assert attention(student, scales * student).item() == pytest.approx(0.0, abs=1e-24)


def test_attention_pools_before_it_squares():
    student, teacher = normal(2, 3, 6, 4), normal(2, 3, 3, 4, seed=1)
    pooled = student.numpy().reshape(2, 3, 3, 2, 4).mean(3)
    expected = _attention_by_loops(pooled, teacher.numpy())
    assert attention(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_attention_needs_positions():
    with pytest.raises(ValueError, match=r"maps \(B, C, H, W\), not \(2, 3\)"):
        attention(torch.zeros(2, 3), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(("student", "teacher"), [((1, 1), (1, 1)), ((4, 4), (1, 1)), ((1, 5), (5, 1))])
def test_attention_of_one_position_is_refused_as_it_is_always_one(student, teacher):
    with pytest.raises(ValueError, match=rf"more than one position, not \({student[0]}, {student[1]}\) of the student"):
        attention(torch.randn(2, 3, *student), torch.randn(2, 3, *teacher))
