"""Accuracy of a classifier on a folder of images, on the device itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgekd.errors import BackendError, DataError, RangeError, UsageError
from edgekd.runtime.backends import Session
from edgekd.runtime.images import (
    LeftOut,
    clear_read_errors,
    find_images,
    is_skipped,
    leads_back,
    left_beside,
    shown_name,
)
from edgekd.runtime.label_table import (
    IMAGE_NAMES,
    LABEL_NAMES,
    Column,
    files_in,
    measured_rows,
    read_table,
    refuse_conflicts,
)
from edgekd.runtime.model import Model, network_inputs
from edgekd.runtime.preprocess import Floats, Preprocessing
from edgekd.runtime.statistics import Calibration, ClassAccuracy, Outputs, most_confused, wilson
from edgekd.wording import counted


class Classifier(Protocol):
    """What is measured: a loaded bundle (edgekd.runtime.model.Model), or a network in a session."""

    @property
    def variant(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def engine(self) -> str: ...

    def inputs(self, images: Iterable[Path]) -> Floats:
        """(N, C, H, W) float32. Raises DataError where an image cannot be read."""
        ...

    def run(self, array: Floats) -> Floats:
        """From inputs to logits (N, K), those of the classes first."""
        ...


@dataclass(frozen=True)
class Network:
    """A network without a bundle, and what its file does not say.

    Attributes:
        variant: what it is called.
        classes: in the order of the logits.
        columns: the number of its outputs, those of additional heads included.
    """

    variant: str
    classes: tuple[str, ...]
    columns: int
    preprocessing: Preprocessing
    session: Session

    @property
    def engine(self) -> str:
        return self.session.engine

    def inputs(self, images: Iterable[Path]) -> Floats:
        return network_inputs(images, self.preprocessing)

    def run(self, array: Floats) -> Floats:
        """Raises BackendError where the network takes other inputs, or its outputs are not those of the classes."""
        fixed = self.session.inputs[0].shape[:1] if self.session.inputs else ()
        size = next((each for each in fixed if isinstance(each, int)), len(array))
        logits = self._computed(array, size).astype(np.float32, copy=False)
        if logits.shape != (len(array), self.columns):
            raise BackendError(
                f"{self.variant} has other outputs than its classes need",
                found=f"{logits.shape} for {counted(len(array), 'image')}",
                allowed=f"({len(array)}, {self.columns})",
            )
        return logits

    def _computed(self, array: Floats, size: int) -> Floats:
        """In batches of a network's fixed size; the last one is filled up with its last image."""
        found = []
        for start in range(0, len(array), size):
            part = array[start : start + size]
            filled = np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)])
            found.append(self.session.bind(filled)()[: len(part)])
        logits: Floats = np.concatenate(found)
        return logits


@dataclass(frozen=True)
class Confusion:
    """How often images of the class `label` were taken for the class `answer`."""

    label: str
    answer: str
    count: int


@dataclass(frozen=True)
class Majority:
    """The most frequent class, and its share of the images (0 to 1): the accuracy of always answering it."""

    label: str
    share: float


@dataclass(frozen=True)
class WorstImage:
    """An image that was answered wrongly.

    Attributes:
        file: its path relative to the folder that was measured, or to the table's, with what cannot be printed escaped.
        label: the class that is right.
        answer: the class that was answered.
        probability: of the answer, 0 to 1.
    """

    file: str
    label: str
    answer: str
    probability: float


@dataclass(frozen=True)
class FolderAccuracy:
    """The accuracy of a classifier on a folder or table of images. Shares and probabilities are from 0 to 1.

    Attributes:
        accuracy: fraction (0 to 1) of the readable images whose predicted class is their folder's or row's.
        interval: its 95 % interval.
        samples: the number of readable images.
        balanced_accuracy: the mean of the accuracies of the classes that have images.
        per_class: of each class that has images, the accuracy, its 95 % interval, and the number of images.
        calibration: how well the probabilities of the answers agree with the accuracy; None where no output is finite.
        worst: the wrong answers with the highest probabilities, the highest first.
        confused: the most frequent confusions, the most frequent first.
        majority: the most frequent class, and its share of the images.
        problems: why the predictions cannot be believed; empty for a model that has learned something.
        variant, engine: what computed the predictions: a bundle's variant, "checkpoint", or a file's name.
        unreadable: paths of the images that were skipped.
        left_out: what was found beside the images; "" for nothing.
        split: of a table with splits the one that the images are of; else "".
    """

    accuracy: float
    interval: tuple[float, float]
    samples: int
    balanced_accuracy: float
    per_class: dict[str, ClassAccuracy]
    calibration: Calibration | None
    worst: tuple[WorstImage, ...]
    confused: tuple[Confusion, ...]
    majority: Majority
    problems: tuple[str, ...]
    variant: str
    engine: str
    unreadable: tuple[str, ...]
    left_out: str = ""
    split: str = ""


Columns = tuple[str | None, str | None]


def measure(
    model: Classifier,
    place: Path,
    *,
    columns: Columns = (None, None),
    progress: Callable[[int, int], None] | None = None,
) -> FolderAccuracy:
    """Classify every image in place/<class>/, or of a table; of a table with a test split, those of that split.

    Args:
        model: the classifier.
        place: a folder with one subfolder per class, by the classifier's name for it, with images at any depth; or a
            table of images and labels, see edgekd.runtime.label_table.
        columns: the names of a table's column of images and of labels; None: those with usual names.
        progress: called with (images done, images in total).

    Raises:
        DataError: neither a folder nor a table, no readable images, or a class that is not one of the classifier's.
        RangeError: an image with values outside of the range that the classifier reads images in.
        BackendError: the network does not take such inputs.
        UsageError: an image can have several of a bundle's classes.
    """
    if isinstance(model, Model) and model.manifest.task == "multilabel":
        raise UsageError(
            "an image can have several of this bundle's classes, which folders cannot state",
            found=str(place),
            allowed="a table of images and labels, e.g. labels.csv: see edgekd.runtime.set_scores",
        )
    found = _in_table(place, model.classes, columns) if place.is_file() else _in_folders(place, model.classes)
    seen, files, unreadable = _classified(model, found.images, progress)
    if not files:
        raise DataError(
            f"{place} has no readable images",
            found="; ".join(
                filter(None, (counted(len(unreadable), "unreadable image") if unreadable else "", str(found.left_out)))
            ),
        )
    correct = int(seen.correct.sum())
    return FolderAccuracy(
        accuracy=correct / len(files),
        interval=wilson(correct, len(files)),
        samples=len(files),
        balanced_accuracy=seen.balanced_accuracy,
        per_class=seen.per_class(),
        calibration=seen.calibration(),
        worst=tuple(_worst(seen, files, place)),
        confused=tuple(Confusion(*row) for row in most_confused(seen.confusion, model.classes)),
        majority=Majority(*seen.majority),
        problems=tuple(seen.problems()),
        variant=model.variant,
        engine=model.engine,
        unreadable=tuple(unreadable),
        left_out=str(found.left_out),
        split=found.split,
    )


def _classified(
    model: Classifier, images: Sequence[tuple[str, Path]], progress: Callable[[int, int], None] | None
) -> tuple[Outputs, list[Path], list[str]]:
    """The outputs for all readable images, these images, and the paths of the others."""
    seen = Outputs(model.classes)
    files: list[Path] = []
    unreadable: list[str] = []
    for done, (name, file) in enumerate(images, start=1):
        try:
            inputs = model.inputs([file])
        except RangeError:
            raise
        except DataError:
            unreadable.append(str(file))
        else:
            files.append(file)
            seen.add(model.run(inputs)[:, : len(model.classes)], np.array([model.classes.index(name)]))
        if progress is not None:
            progress(done, len(images))
    return seen, files, unreadable


@dataclass(frozen=True)
class _Labelled:
    """Images with the names of their classes, what lies beside them, and a table's split."""

    images: list[tuple[str, Path]]
    left_out: LeftOut = LeftOut()
    split: str = ""


def _worst(seen: Outputs, files: Sequence[Path], place: Path) -> Iterator[WorstImage]:
    for each in seen.worst():
        yield WorstImage(shown_name(files[each.row], place), each.label, each.answer, each.probability)


def _in_folders(folder: Path, known: Sequence[str]) -> _Labelled:
    """Raises DataError."""
    images: list[tuple[str, Path]] = []
    with clear_read_errors(folder):
        names, left_out = _classes_in(folder, known), left_beside(folder)
        for name in names:
            found = find_images(folder / name, (folder,))
            left_out += found.left_out
            images += [(name, file) for file in found.images]
    return _Labelled(images, left_out)


def _in_table(path: Path, known: Sequence[str], columns: Columns) -> _Labelled:
    """Raises DataError."""
    image, label = Column("image_column", columns[0], IMAGE_NAMES), Column("label_column", columns[1], LABEL_NAMES)
    table, split = measured_rows(read_table(path, [image, label]))
    files, names = files_in(table, table.place(image), outside=True), table.values(table.place(label), "label")
    refuse_conflicts(table, files, names)
    _refuse_unknown(path, set(names), known)
    rows = dict.fromkeys(zip(names, files, strict=True))
    return _Labelled([(name, path.parent / file) for name, file in rows], split=split)


def _classes_in(folder: Path, known: Sequence[str]) -> list[str]:
    """The names of the classes' folders. Raises DataError."""
    if not folder.is_dir():
        allowed = "a folder with one subfolder of images per class, or a table of images and labels"
        raise DataError(f"{folder} is not a folder", found="nothing there", allowed=allowed)
    classes = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_skipped(path.name) and not leads_back(path)
    )
    if not classes:
        raise DataError(
            f"{folder} has no folders of classes",
            found="images" if find_images(folder).images else "no images either",
            allowed="a folder with one subfolder of images per class",
        )
    _refuse_unknown(folder, set(classes), known)
    return classes


def _refuse_unknown(place: Path, classes: set[str], known: Sequence[str]) -> None:
    if unknown := sorted(classes - set(known)):
        raise DataError(
            f"{place} has classes that the model does not have",
            found=_some(unknown, 10),
            allowed=_some(known, 20),
            hint="rename the folders or labels; a model whose weights named no classes has those of data.classes",
        )


def _some(names: Sequence[str], most: int) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"
