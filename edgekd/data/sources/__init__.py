"""Data sources, one file per source: each exports SOURCE, a Source. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd import plugins
from edgekd.errors import DataError, PluginError, UsageError
from edgekd.recipe.settings import DataSettings, Task
from edgekd.runtime.images import LeftOut
from edgekd.store.artifacts import Json

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Labels = npt.NDArray[np.int64]
# The label of an image without one.
UNLABELLED = -1


class Samples(Protocol):
    """The labelled images of one split; it can be pickled, for reading in other processes.

    Attributes:
        labels: (N,), positions in RawData.classes; with several labels per image (N, C), 1 where an image has a class.
    """

    labels: Labels

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """Decode one image, upright; called from several threads. Raises one of edgekd.runtime.images.BROKEN."""
        ...

    def name(self, index: int) -> str:
        """The image's name, for messages."""
        ...


@dataclass(frozen=True)
class RawData:
    """A source's classes and splits: always "train", the others where the source has them.

    Attributes:
        classes: their names, in the order of the labels.
        splits: the images.
        left_out: what lies beside the images in the source's folder.
        notes: warnings about what was read, one sentence each.
        missing: the names of images that are not there, where the source knows it without reading them.
        labelled: False where every label is UNLABELLED; the classes are then those that the recipe names, or none.

    Raises:
        DataError: fewer than two classes, a repeated class name, a split of another name, no training images, or labels
            that are neither one whole number per image, within the classes, nor a 0 or 1 for each class.
    """

    classes: tuple[str, ...]
    splits: Mapping[SplitName, Samples]
    left_out: LeftOut = LeftOut()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    labelled: bool = True

    def __post_init__(self) -> None:
        if wrong := [name for name in self.classes if not isinstance(name, str)]:
            raise DataError("a class has no name", found=wrong[0], allowed="text")
        if unknown := [split for split in self.splits if split not in SPLITS]:
            raise DataError("the source has a split of another name", found=unknown, allowed=", ".join(SPLITS))
        if self.labelled and len(self.classes) < 2:
            raise DataError("a classifier needs at least two classes", found=list(self.classes))
        if twice := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise DataError("two classes have the same name", found=twice)
        if "train" not in self.splits or len(self.splits["train"]) == 0:
            raise DataError("there are no training images")
        for split, samples in self.splits.items():
            self._check_labels(split, samples)

    @property
    def task(self) -> Task:
        """Whether an image has one label or several."""
        return "multilabel" if self.splits["train"].labels.ndim == 2 else "single-label"

    def _check_labels(self, split: str, samples: Samples) -> None:
        labels: object = samples.labels
        if isinstance(labels, np.ndarray) and labels.ndim == 2 and self._are_sets(labels, len(samples)):
            return
        if not (isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and labels.shape == (len(samples),)):
            found = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
            raise DataError(
                f"the labels of the {split} split are wrong",
                found=found,
                allowed=f"a NumPy array of {len(samples)} whole numbers, one for each image",
            )
        if split != "train" and self.splits["train"].labels.ndim == 2:
            raise DataError(f"the {split} split has one label per image, and the train split several")
        if not self.labelled:
            outside = np.flatnonzero(samples.labels != UNLABELLED)
        else:
            outside = np.flatnonzero((samples.labels < 0) | (samples.labels >= len(self.classes)))
        if len(outside):
            first = int(outside[0])
            example = f"{samples.labels[first]} at {samples.name(first)}"
            raise DataError(
                f"the {split} split has labels outside the classes",
                found=f"{len(outside)} of {len(samples)}, first {example}",
                allowed=f"0 to {len(self.classes) - 1}",
                hint="unlabelled images cannot be used here; remove their files",
            )

    def _are_sets(self, labels: Labels, count: int) -> bool:
        known = labels.dtype.kind in "iu" and labels.shape == (count, len(self.classes))
        both_sets = np.ndim(self.splits["train"].labels) == 2
        return bool(known and both_sets and ((labels == 0) | (labels == 1)).all())


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data source.

    Attributes:
        read: from a recipe's `data` section to the splits, with labels; no image is decoded yet. Raises DataError
            where the images are missing or cannot be used, and MissingDependencyError.
        fingerprint: identifies the content without reading all of it: names, sizes and times of files, or a version.
            It is part of the key under which the prepared images are kept. Raises as `read`.
        mirror: whether an image mirrored left to right keeps its class.
        options: the settings that it uses, of DataSettings.source_options; a recipe must not set the others.
        class_names: the names of the training split's classes as `read` orders them, where a setting decides the order.
        labelled: whether its images have labels. Without them a trained student can be quantized, and measured by how
            often it agrees with itself in float; a recipe may name its classes.
    """

    read: Callable[[DataSettings], RawData]
    fingerprint: Callable[[DataSettings], Json]
    mirror: bool
    options: tuple[str, ...] = ()
    class_names: Callable[[DataSettings], tuple[str, ...]] | None = None
    labelled: bool = True

    def check_declaration(self) -> None:
        """Raises PluginError where an option is not one of the recipe's."""
        if unknown := [key for key in self.options if key not in DataSettings.source_options]:
            raise PluginError(
                "a data source uses an unknown option", found=unknown[0], allowed=", ".join(DataSettings.source_options)
            )

    def check(self, settings: DataSettings) -> None:
        """Raises UsageError for a setting that this source would ignore."""
        if ignored := [key for key in settings.set_options if key not in self.options]:
            raise UsageError(
                f"the source {settings.source} does not use {', '.join(ignored)}",
                allowed=", ".join(self.options) or None,
                hint="remove it" if len(ignored) == 1 else "remove them",
            )


def source_named(name: str, *, where: str = "") -> Source:
    """The data source of that name.

    Args:
        name: of the source.
        where: the setting that names it, for the message.

    Raises:
        UnknownNameError: there is no such source.
        PluginError: its file is broken.
    """
    source: Source = plugins.load("source", name, where=where)
    return source
