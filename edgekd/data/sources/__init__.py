"""Data sources, one file per source: each exports SOURCE, a Source. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

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
# The settings of every data section that some sources read images and labels by.
_DECIDING = ("task", "class_order", "classes")


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
        ordered: True where the labels give the order of the classes by themselves, for a source that also reads names
            (Source.class_names).

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
    ordered: bool = False

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
        settings: the `data` section that its functions are given: a subclass of DataSettings with its own options.
        tasks: the kinds of labels that it can give.
        class_names: the names of the training split's classes as `read` orders them, where `class_order` and `classes`
            decide the order; empty for labels that are in an order of their own.
        labelled: whether its images have labels. Without them a trained student can be quantized, and measured by how
            often it agrees with itself in float; a recipe may name its classes.
    """

    read: Callable[[Any], RawData]
    fingerprint: Callable[[Any], Json]
    mirror: bool
    settings: type[DataSettings] = DataSettings
    tasks: tuple[Task, ...] = ("single-label",)
    class_names: Callable[[Any], tuple[str, ...]] | None = None
    labelled: bool = True

    def check_declaration(self) -> None:
        """Raises PluginError where a misspelt option would be ignored."""
        if self.settings.model_config.get("extra") != "forbid":
            raise PluginError(f"its settings, {self.settings.__name__}, accept unknown keys", allowed="extra='forbid'")

    @property
    def unused(self) -> tuple[str, ...]:
        """The settings of every data section that would not change what this source reads."""
        ordered = self.class_names is not None
        used = {"task": len(self.tasks) > 1, "class_order": ordered, "classes": ordered or not self.labelled}
        return tuple(key for key in _DECIDING if not used[key])

    def options_of(self, settings: DataSettings) -> Json:
        """What decides, besides root, which images and labels it gives: settings that differ from their defaults."""
        own = set(self.settings.model_fields) - set(DataSettings.model_fields)
        return settings.model_dump(mode="json", include={*own, *_DECIDING}, exclude_defaults=True)

    def check(self, settings: DataSettings) -> None:
        """Raises UsageError for a setting that this source would ignore."""
        given = self.options_of(settings)
        if ignored := [key for key in self.unused if key in given]:
            raise UsageError(
                f"the source {settings.source} does not use {', '.join(ignored)}",
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
