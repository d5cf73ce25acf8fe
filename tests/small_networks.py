"""A small network, and a checkpoint of it or of what was made of it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint
from edgekd.runtime.preprocess import Preprocessing

SMALL = Architecture(
    model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.35}, num_classes=3, small_stem=True
)


def save_small(network: nn.Module, architecture: Architecture, out: Path) -> Checkpoint:
    """The checkpoint of a network for three classes of 32x32 pixels, in a new folder."""
    out.mkdir()
    seen = Preprocessing((32, 32), (32, 32))
    return checkpoints.save(network, architecture, preprocessing=seen, classes=("a", "b", "c"), out=out)
