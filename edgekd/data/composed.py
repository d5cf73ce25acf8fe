"""Splits and data sets made from others: a subset of the images, or several splits concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data import storage
from edgekd.data.dataset import Dataset, Split
from edgekd.data.sources import UNLABELLED, Labels
from edgekd.runtime.preprocess import Pixels


class Chosen:
    """A subset of a split, in any order, with repetition.

    Args:
        split: the images.
        rows: (N,), indices into the split.
        labelled: False hides the labels: every label is UNLABELLED.
    """

    def __init__(self, split: Split, rows: Labels, *, labelled: bool = True) -> None:
        self.labels: Labels = split.labels[rows] if labelled else np.full(len(rows), UNLABELLED, dtype=np.int64)
        self.streamed = split.streamed
        self._split = split
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """(B, H, W, C) uint8. Raises DataError where an image can no longer be read."""
        return self._split.pixels(self._rows[indices])


class Joined:
    """Several splits concatenated, whose images have the same size."""

    def __init__(self, parts: Sequence[Split]) -> None:
        self.labels: Labels = np.concatenate([part.labels for part in parts])
        self.streamed = any(part.streamed for part in parts)
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """(B, H, W, C) uint8. Raises DataError where an image can no longer be read."""
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        blocks = {
            number: self._parts[number].pixels(indices[owner == number] - self._starts[number])
            for number in np.unique(owner).tolist()
        }
        shape = next(iter(blocks.values())).shape[1:]
        pixels: Pixels = np.empty((len(indices), *shape), dtype=np.uint8)
        for number, some in blocks.items():
            pixels[owner == number] = some
        return pixels


def public_part(data: Dataset, rows: Labels, out: Path) -> Dataset:
    """A data set whose training split is a subset of another's training images, without their labels.

    It is stored in the same way, and shares the validation and test splits.

    Args:
        rows: (N,), indices of the training images.
        out: an empty folder, which becomes the data set.

    Raises:
        OSError: the disk is full.
    """
    hidden = np.full(len(rows), UNLABELLED, dtype=np.int64)
    if data.details.storage == "cached":
        pixels = np.load(storage.pixels_file(data.path, "train"), mmap_mode="r")
        storage.write_cached(out, "train", pixels, rows, hidden)
    else:
        split, samples = storage.read_streamed(data.path, "train")
        storage.write_streamed(out, "train", split, samples[rows], hidden)
    for name in ("validation", "test"):
        link_split(data.path, out, name)
    return Dataset.seal(out, details=data.details.with_train(len(rows)).model_copy(update={"labelled": False}))


def link_split(folder: Path, out: Path, split: str) -> None:
    """Link or copy a split's files into another data set's folder. Raises OSError where the disk is full."""
    for file in (storage.labels_file, storage.pixels_file, storage.samples_file, storage.names_file):
        if file(folder, split).exists():
            storage.link_or_copy(file(folder, split), file(out, split))
