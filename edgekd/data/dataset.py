"""Reading a prepared data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from edgekd.data import storage
from edgekd.data.balance import Balance, counts_of
from edgekd.data.findings import DatasetMetrics
from edgekd.data.sources import SPLITS, Labels, Samples, SplitName, source_named
from edgekd.data.storage import Storage
from edgekd.errors import ArtifactError, DataError
from edgekd.recipe.settings import Measure, Task
from edgekd.runtime.images import BROKEN
from edgekd.runtime.preprocess import Pixels, Preprocessing
from edgekd.store.artifacts import Artifact, Details, Json
from edgekd.store.plan import is_pending


class Reopen(Details):
    """Where the images of a streamed data set lie.

    Attributes:
        root: the source's folder; None for a source without one.
        fingerprint: the source's, which changes when the images change.
        options: the recipe's settings that decide, besides root, what the source reads.
    """

    root: str | None
    fingerprint: Json
    options: Json = {}


class DatasetDetails(Details):
    """What describes a data set.

    Attributes:
        source: the plugin that read it.
        mirror: whether a mirrored image keeps its class.
        counts: images of each split.
        task: whether an image has one label or several.
        balance: how training images are drawn; see edgekd.data.balance.
        reopen: for a streamed set; a cached one has its pixels.
        labelled: whether the training images have labels.
        answered: whether the labels of validation and test are the float student's answers, because none were given.
        synthetic: whether the training images were generated from a teacher.
        teacher: the digest of that teacher.
    """

    source: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    mirror: bool
    storage: Storage
    counts: dict[str, int]
    task: Task = "single-label"
    balance: Balance = "none"
    reopen: Reopen | None = None
    labelled: bool = True
    answered: bool = False
    synthetic: bool = False
    teacher: str | None = None

    @model_validator(mode="after")
    def _streamed_sets_reopen(self) -> DatasetDetails:
        storage.check_reopen(self.storage, self.reopen)
        return self

    def with_train(self, count: int) -> DatasetDetails:
        """A copy with another number of training images."""
        return self.model_copy(update={"counts": {**self.counts, "train": count}})


class Dataset(Artifact[DatasetDetails]):
    """Splits of images and labels; open_split() reads them."""

    kind = "dataset"
    measured = DatasetMetrics

    @property
    def classes(self) -> tuple[str, ...]:
        return self.details.classes

    @property
    def measure(self) -> Measure:
        """What the figure that models are judged by is called.

        It is the share of answers that equal the labels; where an image has several labels, the mean average precision.
        """
        if self.multilabel:
            return "mAP"
        return "agreement" if self.details.answered else "accuracy"

    @property
    def multilabel(self) -> bool:
        """Whether an image has any number of the classes."""
        return self.details.task == "multilabel"


class Split(Protocol):
    """The images of one split; can be pickled cheaply.

    Attributes:
        labels: (N,) int64; with several labels per image (N, C), 0 or 1.
        streamed: whether pixels() decodes files, which is faster with several processes.
    """

    labels: Labels
    streamed: bool

    def __len__(self) -> int: ...

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """A new array (B, H, W, C) uint8, not cropped. Raises DataError where an image can no longer be read."""
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
        rows: (N,), indices of its samples.
        labels: (N,).
        preprocessing: how an image is fitted and scaled.
    """

    streamed = True

    def __init__(self, samples: Samples, rows: Labels, labels: Labels, preprocessing: Preprocessing) -> None:
        self.labels = labels
        self._samples = samples
        self._rows = rows
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Pixels:
        return np.stack([self._fitted(int(row)) for row in self._rows[indices]])

    def _fitted(self, row: int) -> Pixels:
        try:
            return self._preprocessing.fitted(self._samples.image(row))
        except BROKEN as error:
            raise DataError(
                f"{self._samples.name(row)} can no longer be read, but could be when the data set was prepared",
                found=repr(error),
                hint="check whether its files are still there",
            ) from None


def open_split(dataset: Dataset, name: str) -> Split:
    """One of a data set's splits.

    Args:
        name: train, validation or test.

    Raises:
        DataError: no such split, or the files behind a streamed set were changed or removed.
        ArtifactError: the data set's own files are damaged.
    """
    if name not in SPLITS:
        raise DataError(f"unknown split {name!r}", allowed=", ".join(SPLITS))
    try:
        if dataset.details.reopen is None:
            return CachedSplit(dataset.path, name)
        return _open_streamed(dataset.path, name, dataset.details, dataset.details.reopen)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ArtifactError(f"{dataset.path} cannot be read as a data set", found=repr(error)) from None


def names_of(dataset: Dataset, split: str, rows: Sequence[int]) -> list[str]:
    """The source's names of images, such as paths below its root; split and row where the data set has no names.

    Args:
        rows: indices into the split.
    """
    names = storage.read_names(dataset.path, split)
    if not names:
        return [f"{split}[{row}]" for row in rows]
    if max(rows, default=0) >= len(names):
        raise ArtifactError(
            f"{storage.names_file(dataset.path, split)} has {len(names)} names",
            allowed=f"one for each of the {dataset.details.counts[split]} images",
            hint=f"delete {dataset.path} to make it again",
        )
    return [names[row] for row in rows]


def class_counts(dataset: Dataset) -> tuple[int, ...]:
    """How many training images each class has; of a data set that a plan expects, as its source lists them.

    Raises:
        DataError, ArtifactError: as open_split().
    """
    if is_pending(dataset):
        counts = dataset.metrics["classes"]["train"]
        return tuple(counts[name] for name in dataset.classes)
    return counts_of(open_split(dataset, "train").labels, len(dataset.classes))


def _open_streamed(folder: Path, name: str, details: DatasetDetails, reopen: Reopen) -> StreamedSplit:
    source, root = source_named(details.source), reopen.root
    if root is not None and not Path(root).exists():
        raise DataError(
            f"the images that were read from {root} are no longer there",
            hint=f"restore them; or, if they were moved, delete {folder} to prepare the data set from the new location",
        )
    section = {"source": details.source, "root": root, **reopen.options}
    settings = source.settings.model_validate_json(json.dumps(section))
    if source.fingerprint(settings) != reopen.fingerprint:
        raise DataError(
            f"the images under {root} were changed since the data set was prepared",
            hint="run the recipe again: the data set is prepared again",
        )
    split, rows = storage.read_streamed(folder, name)
    samples = source.read(settings).splits[cast(SplitName, split)]
    labels = np.load(storage.labels_file(folder, name))
    if len(rows) != len(labels) or rows.max(initial=-1) >= len(samples):
        raise ValueError(f"{storage.samples_file(folder, name).name} has other samples than there are")
    return StreamedSplit(samples, rows, labels, details.preprocessing)
