"""Reading a prepared data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.data import storage
from edgekd.data.decode import BROKEN
from edgekd.data.sources import SPLITS, Labels, Samples
from edgekd.errors import ArtifactError, DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.preprocess import Pixels, square
from edgekd.store.artifacts import Artifact, Json, read_json


class Dataset(Artifact):
    """Splits of images and labels; open_split() reads them."""

    kind = "dataset"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest.details["classes"])


class Split(Protocol):
    """The images of one split; can be pickled cheaply.

    Attributes:
        labels: (N,) int64.
        streamed: whether pixels() decodes files, so that more processes help.
    """

    labels: Labels
    streamed: bool

    def __len__(self) -> int: ...

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """A fresh array (B, resize, resize, 3) uint8. Raises DataError where an image cannot be read any more."""
        ...


class CachedSplit:
    """Pixels in a memory-mapped file."""

    streamed = False

    def __init__(self, folder: Path, name: str) -> None:
        self._origin = (folder, name)
        self.labels: Labels = np.load(storage.labels_file(folder, name))
        self._pixels: Pixels = np.asarray(np.load(storage.pixels_file(folder, name), mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSplit, self._origin  # or pickle would write out the whole file

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        return self._pixels[indices]


class StreamedSplit:
    """Pixels decoded from the source at every call.

    Args:
        samples: the source's split.
        rows: (N,), which of its samples.
        labels: (N,).
        side: pixels of the square that an image is scaled to.
    """

    streamed = True

    def __init__(self, samples: Samples, rows: Labels, labels: Labels, side: int) -> None:
        self.labels = labels
        self._samples = samples
        self._rows = rows
        self._side = side

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        return np.stack([self._square(int(row)) for row in self._rows[indices]])

    def _square(self, row: int) -> Pixels:
        try:
            return square(self._samples.image(row), self._side)
        except BROKEN as error:
            raise DataError(
                f"{self._samples.name(row)} could be read when the data set was prepared, and cannot be now",
                found=repr(error),
                hint="are its files still there?",
            ) from None


def open_split(dataset: Dataset, name: str) -> Split:
    """One of a data set's splits.

    Args:
        name: train, validation or test.

    Raises:
        DataError: no such split, or the files that a streamed set was made from were changed or are gone.
        ArtifactError: the data set's own files are damaged.
    """
    if name not in SPLITS:
        raise DataError(f"{name!r} is no split", allowed=", ".join(SPLITS))
    try:
        if dataset.manifest.details["storage"] == "cached":
            return CachedSplit(dataset.path, name)
        return _open_streamed(dataset.path, name, dataset.manifest.details)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ArtifactError(f"{dataset.path} cannot be read as a data set", found=repr(error)) from None


def _open_streamed(folder: Path, name: str, details: Json) -> StreamedSplit:
    source = plugins.load("source", details["source"])
    root = details["reopen"]["root"]
    if root is not None and not Path(root).exists():
        raise DataError(
            f"the images that were read from {root} are not there any more",
            hint=f"put them back; or, if they were moved, delete {folder}: it is prepared anew from the new place",
        )
    settings = DataSettings(source=details["source"], root=None if root is None else Path(root))
    if source.fingerprint(settings) != details["reopen"]["fingerprint"]:
        raise DataError(
            f"the images under {root} were changed since the data set was prepared",
            hint="run the recipe again: it prepares the data set anew",
        )
    said = read_json(storage.samples_file(folder, name))
    samples = source.read(settings).splits[said["split"]]
    labels = np.load(storage.labels_file(folder, name))
    rows = np.asarray(said["samples"], dtype=np.int64)
    return StreamedSplit(samples, rows, labels, int(details["preprocessing"]["resize"]))
