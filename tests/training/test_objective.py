from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekd.data.loader import Batch
from edgekd.training.objective import Supervised


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_cross_entropy_by_hand(smoothing):
    """Logits 0 and log 3 are probabilities 1/4 and 3/4; half a label smoothed is 3/4 of it and 1/4 of the other."""
    share = 1 - smoothing / 2
    expected = share * math.log(4) + (1 - share) * math.log(4 / 3)
    images = torch.zeros(2, 1, 1, 2)
    images[..., 1] = math.log(3)
    batch = Batch(images, torch.tensor([0, 0]), torch.arange(2))
    (loss,) = Supervised(label_smoothing=smoothing)(nn.Flatten(), batch).values()
    assert loss.item() == pytest.approx(expected)


def test_weighted_classes_by_hand():
    """Probabilities 1/4 and 3/4; the image of class 0 counts three times."""
    images = torch.zeros(2, 1, 1, 2)
    images[..., 1] = math.log(3)
    batch = Batch(images, torch.tensor([0, 1]), torch.arange(2))
    objective = Supervised(class_weights=(3.0, 1.0))
    (loss,) = objective(nn.Flatten(), batch).values()
    assert loss.item() == pytest.approx((3 * math.log(4) + math.log(4 / 3)) / 4)
    assert not objective.state_dict(), "weights of the data are no state of the training"


def test_independent_classes_by_hand():
    """Logits 0 and log 3 are probabilities 1/2 and 3/4, each of a class of its own; summed over classes."""
    images = torch.zeros(2, 1, 1, 2)
    images[..., 1] = math.log(3)
    batch = Batch(images, torch.tensor([[1, 0], [0, 1]]), torch.arange(2))
    (loss,) = Supervised(multilabel=True)(nn.Flatten(), batch).values()
    assert loss.item() == pytest.approx((2 * math.log(2) + math.log(4) + math.log(4 / 3)) / 2)
    (smoothed,) = Supervised(multilabel=True, label_smoothing=0.2)(nn.Flatten(), batch).values()
    second = 0.9 * math.log(4) + 0.1 * math.log(4 / 3) + 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert smoothed.item() == pytest.approx((2 * math.log(2) + second) / 2)
