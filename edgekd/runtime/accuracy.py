"""Accuracy of a loaded bundle on a folder of images, on the device itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.errors import DataError
from edgekd.runtime.images import LeftOut, find_images, is_skipped, printable
from edgekd.runtime.model import Model
from edgekd.runtime.statistics import Calibration, ClassAccuracy, Outputs, most_confused, wilson


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
        file: its path relative to the folder that was measured, with what cannot be printed escaped.
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
    """The accuracy of a bundle on a folder of images.

    Attributes:
        accuracy: fraction (0 to 1) of the readable images whose predicted class is their folder's name.
        interval: its 95 % interval.
        samples: the number of readable images.
        balanced_accuracy: the mean of the accuracies of the classes that have images.
        per_class: of each class that has images, the accuracy, its 95 % interval, and the number of images.
        calibration: how well the probabilities of the answers agree with the accuracy; None where no output is finite.
        worst: the wrong answers with the highest probabilities, the highest first.
        confused: the most frequent confusions, the most frequent first.
        majority: the most frequent class, and its share of the images.
        problems: why the predictions cannot be believed; empty for a model that has learned something.
        variant, engine: what computed the predictions.
        unreadable: paths of the images that were skipped.
        left_out: what was found beside the images; "" for nothing.
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


def measure(model: Model, folder: Path) -> FolderAccuracy:
    """Classify every image in folder/<class>/.

    Args:
        model: a loaded bundle.
        folder: one subfolder per class, by its name in the bundle, with images at any depth.

    Raises:
        DataError: not a folder, no readable images, or a subfolder that is not one of the bundle's classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", allowed="a folder with one subfolder of images per class")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_skipped(path.name))
    if not classes:
        raise DataError(
            f"{folder} has no folders of classes",
            found="images" if find_images(folder).images else "no images either",
            allowed="a folder with one subfolder of images per class",
        )
    if unknown := sorted(set(classes) - set(model.classes)):
        raise DataError(
            f"{folder} has classes that this bundle does not have",
            found=", ".join(unknown[:10]),
            allowed=", ".join(model.classes[:20]),
        )
    seen, left_out = Outputs(model.classes), LeftOut()
    files, unreadable = [], []
    for name in classes:
        try:
            found = find_images(folder / name)
        except OSError as error:
            raise DataError(f"{error.filename or folder / name} cannot be read", found=error.strerror) from None
        left_out += found.left_out
        for file in found.images:
            try:
                inputs = model.inputs([file])
            except DataError:
                unreadable.append(str(file))
            else:
                files.append(file)
                seen.add(model.run(inputs)[:, : len(model.classes)], np.array([model.classes.index(name)]))
    count = len(seen.correct)
    if not count:
        raise DataError(
            f"{folder} has no readable images",
            found="; ".join(filter(None, (f"{len(unreadable)} unreadable ones", str(left_out)))),
        )
    correct = int(seen.correct.sum())
    return FolderAccuracy(
        accuracy=correct / count,
        interval=wilson(correct, count),
        samples=count,
        balanced_accuracy=seen.balanced_accuracy,
        per_class=seen.per_class(),
        calibration=seen.calibration(),
        worst=tuple(
            WorstImage(printable(files[m.row].relative_to(folder).as_posix()), m.label, m.answer, m.probability)
            for m in seen.worst()
        ),
        confused=tuple(Confusion(*row) for row in most_confused(seen.confusion, model.classes)),
        majority=Majority(*seen.majority),
        problems=tuple(seen.problems()),
        variant=model.variant,
        engine=model.engine,
        unreadable=tuple(unreadable),
        left_out=str(left_out),
    )
