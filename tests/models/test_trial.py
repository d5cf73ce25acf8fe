from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.trial import answer_of, describe
from edgekd.runtime.preprocess import InputShape


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"logits": 1, "features": 2}, "a dict with logits, features"),
        (None, "a NoneType"),
        ([], "a list"),
        ((torch.zeros(2, 3),), "a tuple of 1 tensor: (2, 3)"),
        ([torch.zeros(1)] * 5, "a list of 5 tensors: (1,), (1,), (1,), (1,), …"),
        (torch.zeros(1, 3, 1, 1), "a tensor of shape (1, 3, 1, 1)"),
        (torch.zeros(1, 3, dtype=torch.int64), "a tensor of torch.int64"),
    ],
)
def test_what_a_network_returns_in_words(answer, words):
    assert describe(answer) == words


def test_an_error_of_the_network_names_it_and_the_size():
    assert answer_of(nn.Flatten(), InputShape(3, 2, 2), images=4).shape == (4, 12)
    with pytest.raises(ModelError, match=r"Conv2d cannot compute images of 2x2 \(greyscale\)\n  found: RuntimeError"):
        answer_of(nn.Conv2d(3, 4, 1), InputShape(1, 2, 2))
