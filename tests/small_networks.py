"""A small network, and a checkpoint of it or of what was made of it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint
from edgekd.runtime.preprocess import Preprocessing

SMALL = Architecture(
    model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.35}, num_classes=3, small_stem=True
)


class Versioned(nn.Linear):
    """Wants to know, as torchvision's MNASNet does, which version of its own wrote the weights that it loads."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others) -> None:
        if local_metadata.get("version") != self._version:
            raise ValueError(f"version should be {self._version} instead of {local_metadata.get('version')}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def save_small(network: nn.Module, architecture: Architecture, out: Path) -> Checkpoint:
    """The checkpoint of a network for three classes of 32x32 pixels, in a new folder."""
    out.mkdir()
    seen = Preprocessing((32, 32), (32, 32))
    return checkpoints.save(network, architecture, preprocessing=seen, classes=("a", "b", "c"), out=out)


class SmallResidual(nn.Module):
    """An inverted residual with batch norms, dropout behind its last convolution, and a classifier of five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.deep = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.narrow = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Dropout(0.1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.narrow(self.deep(self.wide(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
