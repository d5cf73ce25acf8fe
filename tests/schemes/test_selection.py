"""Which images a student learns from where only some have labels."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.dataset import open_split
from edgekd.data.leaks import contents
from edgekd.errors import DataError
from edgekd.schemes._selection import Criteria, Predictions, confident, draw_labelled
from edgekd.stages import data as data_stage


def test_the_filter_and_the_balance_by_hand():
    tops = np.array([0.9, 0.2, 0.8, 0.7, 0.95, 0.6, 0.5], dtype=np.float32)
    predictions = Predictions(tops, np.array([0, 1, 0, 0, 0, 1, 0]))

    def chosen(confidence: float, balance: bool) -> list[int]:
        return confident(predictions, Criteria(None, confidence, balance, seed=0)).tolist()

    assert chosen(0.5, balance=False) == [0, 2, 3, 4, 5, 6]
    # Six are left, two classes occur: three each, the most confident of class 0, class 1's only one three times.
    assert chosen(0.5, balance=True) == [0, 2, 4, 5, 5, 5]
    assert chosen(0.99, balance=True) == []


def test_labels_are_the_images_that_a_limit_keeps(stages):
    data = data_stage.data(stages())
    train = open_split(data, "train")
    chosen = draw_labelled(train.labels, 50, 10, seed=0)
    limited = open_split(data_stage.data(stages("data.limit=50")), "train")
    assert contents(train, np.flatnonzero(chosen)) == contents(limited)
    assert not draw_labelled(train.labels, 0, 10, seed=0).any() and draw_labelled(train.labels, None, 10, seed=0).all()
    with pytest.raises(DataError, match="distill.scheme.labels(.|\n)*10 .one per class. to"):
        draw_labelled(train.labels, 9, 10, seed=0)
