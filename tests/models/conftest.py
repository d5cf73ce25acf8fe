"""A network of a user's own, in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

NETS = """from torch import nn


def build(num_classes, width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A file whose `build` gives a small network."""
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    return file
