"""Samples of sources that hold their images in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.data.sources import Labels


class ArraySamples:
    """Images in memory.

    Args:
        name: of the split, for messages.
        images: (N, H, W) grey or (N, H, W, 3) colour, uint8.
        labels: (N,) integers.
    """

    def __init__(self, name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> None:
        self.labels: Labels = labels.astype(np.int64)
        self._name = name
        self._images = images

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"
