"""Quality of a loaded bundle of several labels per image on a table of images, on the device itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.errors import DataError, RangeError, UsageError
from edgekd.runtime.images import shown_name
from edgekd.runtime.label_calibration import LabelCalibration
from edgekd.runtime.label_table import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    Column,
    files_in,
    label_sets,
    measured_rows,
    read_table,
)
from edgekd.runtime.model import Model
from edgekd.runtime.multilabel import ClassPrecision, MultilabelOutputs, WrongLabel
from edgekd.wording import counted


@dataclass(frozen=True)
class WrongImage:
    """An image with wrong labels.

    Attributes:
        file: its path relative to the table's folder, with what cannot be printed escaped.
        wrong: the labels, the most confident first, at most 3 of them.
    """

    file: str
    wrong: tuple[WrongLabel, ...]


@dataclass(frozen=True)
class SetScores:
    """The quality of a bundle on the images of a table.

    Attributes:
        mean_average_precision: see edgekd.runtime.average_precision.
        interval: its 95 % interval.
        samples: the number of readable images.
        chance: what a random order of the images would reach.
        micro_f1, macro_f1: at the bundle's thresholds.
        per_class: of each class that has images, the average precision, its 95 % interval, the number of images that
            have it, and how far its probabilities can be believed.
        unmeasured: the classes without images.
        calibration: how well the probabilities agree with the labels; None where no output is finite.
        worst: the images with the most confident wrong labels, the worst first.
        problems: why the predictions cannot be believed; empty for a model that has learned something.
        variant, engine: what computed the predictions.
        unreadable: paths of the images that were skipped.
        left_out: what was found beside the images: nothing, since a table names them.
        split: the split that the images are of; "" where the table names none.
    """

    mean_average_precision: float
    interval: tuple[float, float]
    samples: int
    chance: float
    micro_f1: float
    macro_f1: float
    per_class: dict[str, ClassPrecision]
    unmeasured: tuple[str, ...]
    calibration: LabelCalibration | None
    worst: tuple[WrongImage, ...]
    problems: tuple[str, ...]
    variant: str
    engine: str
    unreadable: tuple[str, ...]
    split: str
    left_out: str = ""


def measure_sets(
    model: Model,
    path: Path,
    *,
    columns: tuple[str | None, str | None] = (None, None),
    separator: str = "|",
    progress: Callable[[int, int], None] | None = None,
) -> SetScores:
    """Classify every image of a table, or those of its test split where it has one.

    Args:
        model: a loaded bundle of several labels per image.
        path: the table: see edgekd.runtime.label_table.
        columns: the names of the images' and of the labels' column; None: those with usual names.
        separator: between the classes in one value.
        progress: called with (images done, images in total).

    Raises:
        UsageError: the bundle has one label per image.
        DataError: not such a table, a class that the bundle does not have, or no readable image.
    """
    if model.manifest.task != "multilabel":
        raise UsageError(
            "this bundle has one label per image, and is measured on a folder of images",
            found=str(path),
            allowed="a folder with one subfolder of images per class",
        )
    if not path.is_file():
        raise DataError(
            f"{path} is not a table",
            found="a folder" if path.is_dir() else "nothing there",
            allowed="for a bundle of several labels per image, a text file with a header such as file,label",
        )
    image = Column("image_column", columns[0], IMAGE_NAMES)
    labels, split = Column("label_column", columns[1], LABEL_NAMES), Column("split_column", None, SPLIT_NAMES)
    table, name = measured_rows(read_table(path, [image]))
    files = files_in(table, table.place(image), outside=True)
    sets, _ = label_sets(table, labels, (image, split), separator)
    if unknown := sorted(frozenset[str]().union(*sets) - set(model.classes)):
        raise DataError(
            f"{path} has classes that this bundle does not have",
            found=", ".join(unknown[:10]),
            allowed=", ".join(model.classes[:20]),
        )
    measured = _predicted(model, [path.parent / file for file in files], sets, progress)
    found = measured.seen.summary(model.manifest.variants[model.variant].thresholds or ())
    return SetScores(
        mean_average_precision=found.mAP,
        interval=found.interval,
        samples=found.samples,
        chance=found.chance,
        micro_f1=found.micro_f1,
        macro_f1=found.macro_f1,
        per_class=found.per_class,
        unmeasured=found.unmeasured,
        calibration=found.calibration,
        worst=tuple(WrongImage(shown_name(measured.files[each.row], path), each.wrong) for each in found.worst),
        problems=found.problems,
        variant=model.variant,
        engine=model.engine,
        unreadable=tuple(measured.unreadable),
        split=name,
    )


@dataclass(frozen=True)
class _Predicted:
    """The outputs for the readable images, their files, and the paths of the others."""

    seen: MultilabelOutputs
    files: list[Path]
    unreadable: list[str]


def _predicted(
    model: Model,
    files: Sequence[Path],
    sets: Sequence[frozenset[str]],
    progress: Callable[[int, int], None] | None,
) -> _Predicted:
    found = _Predicted(MultilabelOutputs(model.classes), [], [])
    for done, (file, names) in enumerate(zip(files, sets, strict=True), start=1):
        try:
            inputs = model.inputs([file])
        except RangeError:
            raise
        except DataError:
            found.unreadable.append(str(file))
        else:
            found.files.append(file)
            found.seen.add(model.run(inputs), np.array([[name in names for name in model.classes]], dtype=np.int64))
        if progress is not None:
            progress(done, len(files))
    if not found.files:
        raise DataError("the table has no readable images", found=counted(len(found.unreadable), "unreadable image"))
    return found
