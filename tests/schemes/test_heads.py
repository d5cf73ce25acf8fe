"""Several heads on one trunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.data.loader import Batch
from edgekd.distillation.objective import Teacher
from edgekd.distillation.terms import Networks, build_terms
from edgekd.recipe.settings import TermSettings
from edgekd.runtime.preprocess import InputShape
from edgekd.schemes._heads import Batches, Head, JointBatches, MultiTask


class Says(nn.Module):
    """Gives every image the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def _head(teacher, columns, *, weight=1.0, groups=None, method="mse"):
    terms = build_terms([TermSettings(method=method)], Networks(teacher, None, 8, 4, 10))
    return Head(Teacher(teacher, torch.device("cpu"), "fp32"), terms, columns, weight, groups)


def _batch(*targets):
    count = len(targets)
    return Batch(torch.zeros(count, 3, 8, 8), torch.tensor(targets), torch.arange(count))


def test_each_head_learns_its_own_teachers_outputs():
    student = Says(0.0, 1.0, 2.0, 5.0, 7.0)
    heads = {
        "main": _head(Says(0.0, 0.0, 0.0), slice(0, 3)),
        "other": _head(Says(5.0, 5.0), slice(3, 5), weight=0.5),
    }
    losses = MultiTask(heads)(student, Batches(**vars(_batch(0, 1))))
    assert {name: loss.item() for name, loss in losses.items()} == {"main mse": 5.0, "other mse": 2.0}


def test_a_grouped_task_learns_grouped_labels():
    head = _head(Says(0.0, 0.0), slice(2, 4), groups=torch.tensor([1, 0]), method="cross_entropy")
    logits = torch.tensor([[9.0, 9.0, 3.0, 0.0]])
    # Class 1 is group 0, whose logit is 3.
    assert head(logits, _batch(1))["cross_entropy"].item() == pytest.approx(np.log1p(np.exp(-3.0)))


class Counting:
    """Batches of one number each: which, and of which epoch."""

    device, shape, batch_size = torch.device("cpu"), InputShape(3, 8, 8), 2

    def __init__(self, steps):
        self.steps = steps

    def __len__(self):
        return self.steps

    def epoch(self, number):
        return (_batch(10 * number + step) for step in range(self.steps))


def test_a_shorter_task_is_repeated_and_a_longer_one_is_truncated():
    shown = list(JointBatches(Counting(3), {"short": Counting(2), "long": Counting(4)}).epoch(1))
    assert [batch.targets.item() for batch in shown] == [10, 11, 12]
    assert [batch.others["short"].targets.item() for batch in shown] == [20, 21, 30]
    assert [batch.others["long"].targets.item() for batch in shown] == [10, 11, 12]
