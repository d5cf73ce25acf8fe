"""Splits made of other splits: some of the images, or several splits one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data.dataset import Split
from edgekd.data.datasets import Labels
from edgekd.runtime.preprocess import Pixels

UNLABELLED = -1


class Chosen:
    """Some images of a split, in any order, any of them more than once.

    Args:
        split: the images.
        rows: (N,), which of them.
        labelled: False: what class they are is hidden, every label is UNLABELLED.
    """

    def __init__(self, split: Split, rows: Labels, *, labelled: bool = True) -> None:
        self.labels: Labels = split.labels[rows] if labelled else np.full(len(rows), UNLABELLED, dtype=np.int64)
        self.streamed = split.streamed
        self._split = split
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """(B, resize, resize, 3) uint8. Raises DataError where an image cannot be read any more."""
        return self._split.pixels(self._rows[indices])


class Joined:
    """Splits one after the other, whose images are scaled to the same size."""

    def __init__(self, parts: Sequence[Split]) -> None:
        self.labels: Labels = np.concatenate([part.labels for part in parts])
        self.streamed = any(part.streamed for part in parts)
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """(B, resize, resize, 3) uint8. Raises DataError where an image cannot be read any more."""
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        found = {
            number: self._parts[number].pixels(indices[owner == number] - self._starts[number])
            for number in np.unique(owner).tolist()
        }
        shape = next(iter(found.values())).shape[1:]
        pixels: Pixels = np.empty((len(indices), *shape), dtype=np.uint8)
        for number, some in found.items():
            pixels[owner == number] = some
        return pixels
