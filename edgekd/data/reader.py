"""From a split to network input, for evaluation, comparison, calibration and the bundle's test vectors.

Training uses edgekd.data.loader, which reads its evaluation images through this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.data.dataset import Dataset, Split, open_split
from edgekd.data.sources import Labels
from edgekd.runtime.preprocess import Floats, Pixels, Preprocessing, centre_crop

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reader:
    """A split's images as network input, of the preprocessing's shape (C, H, W).

    Args:
        split: see edgekd.data.dataset.open_split().
        preprocessing: how the network sees an image.
        shown: called by batches() with the number of images done and of all.
    """

    split: Split
    preprocessing: Preprocessing
    shown: Callable[[int, int], None] | None = None

    def __len__(self) -> int:
        return len(self.split)

    def pixels(self, rows: Rows) -> Pixels:
        """The images at `rows`, centre-cropped: (B, H, W, C) uint8. Raises DataError as Split.pixels()."""
        return centre_crop(self.split.pixels(rows), self.preprocessing.image_size)

    def inputs(self, rows: Rows) -> Floats:
        """The images at `rows`, normalised: (B, C, H, W) float32. Raises DataError as Split.pixels()."""
        return self.preprocessing.normalise(self.pixels(rows))

    def first(self, count: int) -> Rows:
        """The rows of the first `count` images, or of all where there are fewer."""
        return np.arange(min(count, len(self)))

    def batches(self, rows: Rows | None = None, *, size: int = 64) -> Iterator[tuple[Floats, Labels]]:
        """Inputs (B, C, H, W) with their labels (B,), in the order of `rows`, B at most `size`.

        Args:
            rows: indices of the images; None: all, in order.
            size: images per batch; the last batch may be smaller.

        Raises:
            DataError: an image can no longer be read.
        """
        rows = self.first(len(self)) if rows is None else rows
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            yield self.inputs(chosen), self.split.labels[chosen]
            if self.shown is not None:
                self.shown(start + len(chosen), len(rows))


def open_reader(data: Dataset, split: str, *, shown: Callable[[int, int], None] | None = None) -> Reader:
    """A reader of one of the data set's splits, with the data set's own preprocessing.

    Args:
        split: train, validation or test.
        shown: see Reader.

    Raises:
        DataError, ArtifactError: as open_split().
    """
    return Reader(open_split(data, split), data.details.preprocessing, shown)
