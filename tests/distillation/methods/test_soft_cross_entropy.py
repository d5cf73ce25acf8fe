"""soft_cross_entropy against kd."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import softmax

from edgekd.distillation.methods.kd import kd
from edgekd.distillation.methods.soft_cross_entropy import soft_cross_entropy


def test_soft_cross_entropy_is_kd_plus_the_teachers_entropy(logits):
    student, teacher, _ = logits
    p = softmax(teacher.numpy() / 2.0)
    entropy = -4.0 * (p * np.log(p)).sum(1).mean()
    difference = soft_cross_entropy(student, teacher, temperature=2.0) - kd(student, teacher, temperature=2.0)
    assert difference.item() == pytest.approx(entropy, rel=1e-12)
