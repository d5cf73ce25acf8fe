"""A table of images and labels in one file: data.root is the file, e.g. labels.csv, with a header such as file,label.

With task: multilabel a label is several names with label_separator between them, or there is one column of 0 and 1 per
class. Paths are relative to the table's folder. Where it has a column of splits, its values are train, validation (val,
valid) and test; without one, validation and test images are split off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from edgekd.data.class_names import check_known
from edgekd.data.class_order import arranged
from edgekd.data.sources import Labels, RawData, Samples, Source, SplitName
from edgekd.data.sources._columns import ColumnSettings
from edgekd.data.sources._files import SPLIT_WORDS, require_file
from edgekd.data.sources.image_folder import FolderSamples
from edgekd.errors import DataError
from edgekd.recipe.base import Name
from edgekd.runtime.label_table import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    Column,
    Table,
    files_in,
    label_sets,
    read_table,
    refuse_conflicts,
)
from edgekd.store.artifacts import Json, digest, file_digest
from edgekd.wording import counted


class CsvFileSettings(ColumnSettings):
    """How the table is written."""

    split_column: Name | None = Field(
        None, description="the column of the splits: train, validation, test; default: split, if there is one"
    )
    delimiter: Literal[",", ";", "tab"] | None = Field(
        None, description="between the values; default: the one of comma, semicolon and tab in the header"
    )
    label_separator: str = Field(
        "|", min_length=1, description="between the classes in one value, with task: multilabel"
    )
    outside_root: bool = Field(
        False, description="accept files outside of the table's folder, by absolute paths or paths with .."
    )


_HOLDS = "a text file with a header such as file,label"


@dataclass(frozen=True)
class _Labelled:
    """A table's rows as (file, classes, split), each once.

    Attributes:
        classes: in the order of the labels.
        repeated: how many rows repeat another.
    """

    path: Path
    rows: tuple[tuple[str, frozenset[str], SplitName], ...]
    classes: tuple[str, ...]
    repeated: int

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file for file, _, _ in self.rows))


def fingerprint(settings: CsvFileSettings) -> Json:
    """The table's content, and the sizes and times of the files that it names. Args and Raises as read()."""
    labelled = _labelled(settings)
    folder = labelled.path.parent
    rows = [_status(folder, name) for name in labelled.files]
    return {"files": len(rows), "table": file_digest(labelled.path), "digest": digest(rows)}


def read(settings: CsvFileSettings) -> RawData:
    """The labelled images of all splits; images are decoded later, one by one, and missing ones count as broken.

    Args:
        settings: of the data; its root is the table.

    Raises:
        DataError: no such file, not such a table, files outside of its folder, a file with two labels, none of the
            files, or a class in validation or test that train lacks.
    """
    labelled = _labelled(settings)
    folder = labelled.path.parent
    missing = [name for name in labelled.files if not os.path.isfile(folder / name)]
    if len(missing) == len(labelled.files):
        raise DataError(
            f"none of the files that {labelled.path} names exist",
            found=f"{len(missing)}, e.g. {folder / missing[0]}",
            hint="paths must be relative to the table's own folder",
        )
    numbers = {name: number for number, name in enumerate(labelled.classes)}
    splits: dict[SplitName, Samples] = {}
    for split in dict.fromkeys(split for _, _, split in labelled.rows):
        rows = [(file, names) for file, names, own in labelled.rows if own == split]
        names = frozenset[str]().union(*(names for _, names in rows))
        check_known(names, labelled.classes, split=split, where=str(labelled.path), remedy="remove their rows")
        found = [[numbers[name] for name in names] for _, names in rows]
        labels = _sets(found, len(numbers)) if settings.task == "multilabel" else np.array(found, np.int64)[:, 0]
        splits[split] = FolderSamples(folder, [file for file, _ in rows], labels)
    return RawData(labelled.classes, splits, notes=_notes(labelled), missing=tuple(missing))


def class_names(settings: CsvFileSettings) -> tuple[str, ...]:
    """The classes of the training images, in order. Args and Raises as read()."""
    return _labelled(settings).classes


def _labelled(settings: CsvFileSettings) -> _Labelled:
    path = require_file(settings, _HOLDS)
    image = Column("image_column", settings.image_column, IMAGE_NAMES)
    label = Column("label_column", settings.label_column, LABEL_NAMES)
    split = Column("split_column", settings.split_column, SPLIT_NAMES)
    needed = [image] if settings.task == "multilabel" else [image, label]
    needed += [] if settings.split_column is None else [split]
    table = read_table(path, needed, settings.delimiter)
    files = files_in(table, table.place(image), outside=settings.outside_root)
    if settings.task == "multilabel":
        labels, classes = label_sets(table, label, (image, split), settings.label_separator)
    else:
        labels, classes = [frozenset((name,)) for name in table.values(table.place(label), "label")], None
    refuse_conflicts(table, files, [settings.label_separator.join(sorted(names)) for names in labels])
    rows = tuple(dict.fromkeys(zip(files, labels, _splits(table, split), strict=True)))
    if classes is None:
        classes = frozenset[str]().union(*(names for _, names, own in rows if own == "train"))
    return _Labelled(path, rows, arranged(classes, settings), len(table.rows) - len(rows))


def _sets(found: Sequence[Sequence[int]], classes: int) -> Labels:
    """(N, C), 1 for the classes of each row."""
    labels: Labels = np.zeros((len(found), classes), dtype=np.int64)
    for row, numbers in enumerate(found):
        labels[row, numbers] = 1
    return labels


def _splits(table: Table, column: Column) -> list[SplitName]:
    if column.name is None and not column.places(table.header):
        return ["train"] * len(table.rows)
    words = table.values(table.place(column), "split")
    if unknown := sorted({word for word in words if word.lower() not in SPLIT_WORDS}):
        raise DataError(
            f"{table.path} has splits of other names", found=", ".join(unknown[:10]), allowed=", ".join(SPLIT_WORDS)
        )
    return [SPLIT_WORDS[word.lower()] for word in words]


def _notes(labelled: _Labelled) -> tuple[str, ...]:
    if not labelled.repeated:
        return ()
    return (f"{labelled.path.name} repeats {counted(labelled.repeated, 'row')}; each counts once.",)


def _status(folder: Path, name: str) -> Json:
    try:
        status = os.stat(folder / name)
    except (OSError, ValueError):
        return {"file": name}
    return {"file": name, "size": status.st_size, "time": status.st_mtime_ns}


SOURCE = Source(
    read=read,
    fingerprint=fingerprint,
    mirror=True,
    settings=CsvFileSettings,
    tasks=("single-label", "multilabel"),
    class_names=class_names,
)
