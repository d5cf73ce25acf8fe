"""A table of images and labels in one file: data.root is the file, e.g. labels.csv, with a header such as file,label.

Paths are relative to the table's folder. Where it has a column of splits, its values are train, validation (val, valid)
and test; without one, validation and test images are split off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.data.class_order import in_order
from edgekd.data.sources import RawData, Samples, Source, SplitName
from edgekd.data.sources._files import SPLIT_WORDS, require_file
from edgekd.data.sources.image_folder import FolderSamples
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.label_table import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    Column,
    Table,
    files_in,
    read_table,
    refuse_conflicts,
)
from edgekd.store.artifacts import Json, digest, file_digest

_HOLDS = "a text file with a header such as file,label"


@dataclass(frozen=True)
class _Labelled:
    """A table's rows as (file, label, split), each once, and how many others repeat them."""

    path: Path
    rows: tuple[tuple[str, str, SplitName], ...]
    repeated: int

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file for file, _, _ in self.rows))


def fingerprint(settings: DataSettings) -> Json:
    """The table's content, and the sizes and times of the files that it names. Args and Raises as read()."""
    labelled = _labelled(settings)
    folder = labelled.path.parent
    rows = [_status(folder, name) for name in labelled.files]
    return {"files": len(rows), "table": file_digest(labelled.path), "digest": digest(rows)}


def read(settings: DataSettings) -> RawData:
    """The labelled images of all splits; images are decoded later, one by one, and missing ones count as broken.

    Args:
        settings: of the data; its root is the table.

    Raises:
        DataError: no such file, not such a table, files outside of its folder, a file with two labels, none of the
            files, or a class in validation or test that train lacks.
    """
    labelled = _labelled(settings)
    folder = labelled.path.parent
    if not any(os.path.exists(folder / name) for name in labelled.files):
        raise DataError(
            f"none of the files that {labelled.path} names exist",
            found=f"{len(labelled.files)}, e.g. {folder / labelled.files[0]}",
            hint="paths must be relative to the table's own folder",
        )
    classes = _classes(labelled, settings)
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[SplitName, Samples] = {}
    for split in dict.fromkeys(split for _, _, split in labelled.rows):
        rows = [(file, label) for file, label, own in labelled.rows if own == split]
        _refuse_unknown(labelled, split, {label for _, label in rows} - set(classes))
        labels = np.array([numbers[label] for _, label in rows], dtype=np.int64)
        splits[split] = FolderSamples(folder, [file for file, _ in rows], labels)
    return RawData(classes, splits, notes=_notes(labelled))


def class_names(settings: DataSettings) -> tuple[str, ...]:
    """The classes of the training images, in order. Args and Raises as read()."""
    return _classes(_labelled(settings), settings)


def _labelled(settings: DataSettings) -> _Labelled:
    path = require_file(settings, _HOLDS)
    image = Column("image_column", settings.image_column, IMAGE_NAMES)
    label = Column("label_column", settings.label_column, LABEL_NAMES)
    split = Column("split_column", settings.split_column, SPLIT_NAMES)
    needed = [image, label] if settings.split_column is None else [image, label, split]
    table = read_table(path, needed, settings.delimiter)
    files = files_in(table, table.place(image), outside=settings.outside_root)
    labels = table.values(table.place(label), "label")
    refuse_conflicts(table, files, labels)
    rows = tuple(dict.fromkeys(zip(files, labels, _splits(table, split), strict=True)))
    return _Labelled(path, rows, len(table.rows) - len(rows))


def _splits(table: Table, column: Column) -> list[SplitName]:
    if column.name is None and not column.places(table.header):
        return ["train"] * len(table.rows)
    words = table.values(table.place(column), "split")
    if unknown := sorted({word for word in words if word.lower() not in SPLIT_WORDS}):
        raise DataError(
            f"{table.path} has splits of other names", found=", ".join(unknown[:10]), allowed=", ".join(SPLIT_WORDS)
        )
    return [SPLIT_WORDS[word.lower()] for word in words]


def _classes(labelled: _Labelled, settings: DataSettings) -> tuple[str, ...]:
    return in_order({label for _, label, split in labelled.rows if split == "train"}, settings.class_order)


def _refuse_unknown(labelled: _Labelled, split: SplitName, unknown: set[str]) -> None:
    if unknown:
        raise DataError(
            f"{labelled.path}: the {split} split has classes that train lacks",
            found=", ".join(sorted(unknown)[:10]),
            hint="add training images of them, or remove their rows",
        )


def _notes(labelled: _Labelled) -> tuple[str, ...]:
    if not labelled.repeated:
        return ()
    return (f"{labelled.path.name} repeats {labelled.repeated:,} rows; each counts once.",)


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
    options=("image_column", "label_column", "split_column", "delimiter", "outside_root", "class_order"),
    class_names=class_names,
)
