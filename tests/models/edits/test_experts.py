from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits.experts import Experts, apply

PART = {"model": "cifar/resnet8", "num_classes": 2}


class Says(nn.Module):
    """Gives the same logits to every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_columns_come_in_the_order_of_the_classes():
    experts = Experts([Says(1.0, 2.0), Says(3.0)], order=[2, 0, 1])
    assert experts(torch.zeros(2, 3, 4, 4)).tolist() == [[3.0, 1.0, 2.0]] * 2


def test_experts_are_built_from_their_architectures():
    network = apply(nn.Identity(), {"edit": "experts", "experts": [PART, PART], "order": [3, 2, 1, 0]})
    assert network.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"experts": [PART], "order": [0, 0]}, r"do not have each class once\n  found: order \[0, 0\]"),
        ({"experts": [PART], "order": [0]}, "do not have each class once"),
        ({"experts": [{"model": "cifar/resnet8"}], "order": [0]}, "are not valid"),
        ({"experts": [PART]}, "are not valid"),
    ],
)
def test_a_damaged_edit_is_refused(edit, message):
    with pytest.raises(ModelError, match=message):
        apply(nn.Identity(), edit)
