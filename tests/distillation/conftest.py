"""What several tests of the distillation use."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Toy(nn.Module):
    """One ReLU used twice, changing its input in place; a module that never runs, and one that gives a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Identity()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        x = self.pool(x)[0]
        x = self.relu(x - 1)
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


@pytest.fixture
def toy() -> _Toy:
    torch.manual_seed(4)
    return _Toy()
