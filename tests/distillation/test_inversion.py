"""Images made from a teacher's statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distillation import inversion


def test_classes_are_balanced_in_every_range():
    labels = inversion.wanted_classes(None, 7, seed=0)
    assert np.bincount(labels).tolist() == [inversion.IMAGES_PER_CLASS] * 7
    assert sorted(labels[14:21]) == list(range(7))
    assert np.bincount(inversion.wanted_classes(17, 7, seed=1)).tolist().count(3) == 3


def test_half_of_the_views_are_mirrored_and_shifts_reach_as_far_either_way():
    random = torch.Generator().manual_seed(0)
    drawn = [inversion.draw_shift(1, random) for _ in range(3000)]
    assert {down for down, _, _ in drawn} == {right for _, right, _ in drawn} == {-1, 0, 1}
    assert sum(mirrored for *_, mirrored in drawn) / 3000 == pytest.approx(0.5, abs=0.03)
