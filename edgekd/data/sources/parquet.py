"""Parquet files in Hugging Face's layout: an image column {bytes, path} and an integer label, or a list of them.

A file belongs to the split whose name is a word in the file's name (`train-00000-of-00002.parquet`, `my_test.parquet`),
or the name of a folder above it (`train/0000.parquet`). Class names come from the schema's "huggingface" metadata, else
they are "0", "1", …
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from edgekd.data.sources import Labels, RawData, Source, SplitName
from edgekd.data.sources._columns import ColumnSettings
from edgekd.data.sources._files import SPLIT_WORDS, files_fingerprint, require_root
from edgekd.data.sources._shards import check_complete
from edgekd.errors import DataError, require
from edgekd.recipe.settings import Task
from edgekd.runtime.images import is_skipped, open_upright
from edgekd.store.artifacts import Json

_HOLDS = "a folder of .parquet files with train (and test, validation) in their names or as folders"
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_LABELS: dict[Task, str] = {"single-label": "whole numbers", "multilabel": "lists of whole numbers"}
_GROUPS_IN_MEMORY = 4


@dataclass(frozen=True)
class _RowGroup:
    file: Path
    number: int
    column: str


class ParquetSamples:
    """Rows of Parquet files. Row groups are read on demand; the last few stay in memory."""

    def __init__(self, groups: Sequence[_RowGroup], lengths: Sequence[int], labels: Labels) -> None:
        self.labels = labels
        self._groups = groups
        self._ends = np.cumsum(lengths)
        self._open()

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        group, row = self._locate(index)
        content = self._read(group)[row].as_py()
        if not content or content.get("bytes") is None:
            raise OSError("the row holds no image bytes")
        return open_upright(content["bytes"])

    def name(self, index: int) -> str:
        group, _ = self._locate(index)
        file = self._groups[group].file
        first = next(g for g, other in enumerate(self._groups) if other.file == file)
        return f"{file.name}[{index - (int(self._ends[first - 1]) if first else 0)}]"

    def __getstate__(self) -> Json:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_recent")}

    def __setstate__(self, state: Json) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, Any] = OrderedDict()

    def _locate(self, index: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._ends, index, side="right"))
        return group, index - (int(self._ends[group - 1]) if group else 0)

    def _read(self, number: int) -> Any:
        with self._lock:
            if number not in self._recent:
                group = self._groups[number]
                with _pyarrow().ParquetFile(group.file) as file:
                    self._recent[number] = file.read_row_group(group.number, columns=[group.column])[group.column]
            self._recent.move_to_end(number)
            if len(self._recent) > _GROUPS_IN_MEMORY:
                self._recent.popitem(last=False)
            return self._recent[number]


def fingerprint(settings: ColumnSettings) -> Json:
    """The paths, sizes and times of the Parquet files; their content is not read.

    Args:
        settings: of the data; its root is the folder of the files.

    Raises:
        DataError: there is no root, no training file, a file whose name does not contain one split, or a
            numbered series that lacks a file.
    """
    root = require_root(settings, _HOLDS)
    return files_fingerprint(root, [file for files in _splits(root).values() for file in files])


def read(settings: ColumnSettings) -> RawData:
    """The labelled images of all splits; images are decoded later, one by one.

    Args:
        settings: of the data; its root is the folder of the files.

    Raises:
        DataError: no training file, one that is damaged or lacks the columns, or files that name different classes.
    """
    found = _splits(require_root(settings, _HOLDS))
    splits = {split: _samples(files, settings) for split, files in found.items()}
    labels = splits["train"][0].labels
    classes = splits["train"][1]
    if classes is None:
        count = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
        classes = tuple(str(label) for label in range(count))
    if other := [split for split, (_, names) in splits.items() if names not in (None, classes)]:
        raise DataError("the Parquet files name different classes", found=f"train and {', '.join(other)}")
    for split, (samples, _) in splits.items():
        if samples.labels.ndim == 2:
            samples.labels = _widened(samples.labels, len(classes), split)
    return RawData(classes, {split: samples for split, (samples, _) in splits.items()})


def _widened(sets: Labels, classes: int, split: str) -> Labels:
    """The same labels with a column for every class. Raises DataError where they have more columns than classes."""
    if sets.shape[1] > classes:
        raise DataError(
            f"the {split} split has labels outside the classes", found=sets.shape[1] - 1, allowed=f"0 to {classes - 1}"
        )
    return np.pad(sets, ((0, 0), (0, classes - sets.shape[1])))


def _splits(root: Path) -> dict[SplitName, list[Path]]:
    splits: dict[SplitName, list[Path]] = {}
    sets: set[str] = set()
    for file in sorted(root.rglob("*.parquet")):
        within = file.relative_to(root)
        if any(is_skipped(part) for part in within.parts):
            continue
        above = [part for part in within.parts[:-1] if part.lower() not in SPLIT_WORDS]
        named = {SPLIT_WORDS[word] for word in re.findall("[a-z]+", file.stem.lower()) if word in SPLIT_WORDS}
        named |= {SPLIT_WORDS[part.lower()] for part in within.parts[:-1] if part not in above}
        if len(named) != 1:
            raise DataError(
                f"the name of {file}, or of a folder above it, must contain one split",
                found=", ".join(sorted(named)) or "none",
                allowed=", ".join(SPLIT_WORDS),
            )
        splits.setdefault(named.pop(), []).append(file)
        sets.add("/".join(above))
    if len(sets) > 1:
        raise DataError(
            f"{root} holds several data sets",
            found=", ".join(name or "files beside its folders" for name in sorted(sets)),
            hint=f"name one: data.root: {root / max(sets)}",
        )
    if "train" not in splits:
        raise DataError(f"{root} has no training file", found=", ".join(splits) or "no .parquet file", allowed=_HOLDS)
    check_complete(file for files in splits.values() for file in files)
    return splits


def _samples(files: Sequence[Path], settings: ColumnSettings) -> tuple[ParquetSamples, tuple[str, ...] | None]:
    groups: list[_RowGroup] = []
    lengths: list[int] = []
    labels: list[Labels] = []
    names: set[tuple[str, ...] | None] = set()
    for path in files:
        try:
            with _pyarrow().ParquetFile(path) as file:
                image, label = _columns(path, file.schema_arrow, settings)
                sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                labels.append(_labels(path, file.read(columns=[label])[label], settings))
                names.add(_class_names(path, file.schema_arrow, label))
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise DataError(f"{path} is not a readable Parquet file", found=str(error).splitlines()[0]) from None
        groups += [_RowGroup(path, number, image) for number in range(len(sizes))]
        lengths += sizes
    if len(names) != 1:
        raise DataError("the Parquet files of one split name different classes", found=[f.name for f in files])
    if settings.task == "multilabel":
        width = max(each.shape[1] for each in labels)
        labels = [np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in labels]
    return ParquetSamples(groups, lengths, np.concatenate(labels)), names.pop()


def _columns(path: Path, schema: Any, settings: ColumnSettings) -> tuple[str, str]:
    """The names of the image and of the label column: those in the recipe, or the first with a usual name."""
    types = _arrow("pyarrow.types")
    usable = {
        "image_column": [field.name for field in schema if _is_image(types, field.type)],
        "label_column": [field.name for field in schema if _is_label(types, field.type, settings.task)],
    }
    usual = {"image_column": _IMAGE_COLUMNS, "label_column": _LABEL_COLUMNS}
    chosen = []
    for key, names in usable.items():
        wanted = getattr(settings, key)
        found = next((name for name in ([wanted] if wanted else usual[key]) if name in names), None)
        if found is None:
            kind = "an image" if key == "image_column" else "a label"
            raise DataError(
                f"{path} lacks {kind} column" + (f" {wanted!r}" if wanted else ""),
                found=", ".join(f"{field.name}: {field.type}" for field in schema),
                allowed="struct<bytes, path>" if key == "image_column" else _LABELS[settings.task],
                hint=f"set data.{key}: {' or '.join(names)}" if names else None,
            )
        chosen.append(found)
    return chosen[0], chosen[1]


def _is_image(types: ModuleType, column: Any) -> bool:
    return bool(types.is_struct(column)) and column.get_field_index("bytes") >= 0


def _is_label(types: ModuleType, column: Any, task: Task) -> bool:
    if task == "multilabel":
        lists = types.is_list(column) or types.is_large_list(column) or types.is_fixed_size_list(column)
        return bool(lists) and bool(types.is_integer(column.value_type))
    return bool(types.is_integer(column))


def _labels(path: Path, column: Any, settings: ColumnSettings) -> Labels:
    if column.null_count:
        raise DataError(f"{path} has rows without a label", found=f"{column.null_count} of {len(column)}")
    if settings.task == "multilabel":
        return _sets(path, column)
    labels: Labels = column.to_numpy().astype(np.int64)
    return labels


def _sets(path: Path, column: Any) -> Labels:
    """(N, largest label + 1), 1 where a row's list has the label."""
    lists = column.to_pylist()
    rows = np.repeat(np.arange(len(lists)), [len(each) for each in lists])
    values = [value for each in lists for value in each]
    if wrong := [value for value in values if value is None or value < 0]:
        raise DataError(f"{path} has labels that are no classes", found=repr(wrong[0]), allowed="0 and above")
    sets: Labels = np.zeros((len(lists), max(values, default=-1) + 1), dtype=np.int64)
    sets[rows, np.array(values, dtype=np.int64)] = 1
    return sets


def _class_names(path: Path, schema: Any, label: str) -> tuple[str, ...] | None:
    description = (schema.metadata or {}).get(b"huggingface")
    if description is None:
        return None
    try:
        feature = json.loads(description)["info"]["features"][label]
        if isinstance(feature, list):  # as older versions write a list
            (feature,) = feature
        names = feature.get("feature", feature).get("names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: its Hugging Face metadata is not valid", found=repr(error)) from None
    return None if names is None else tuple(map(str, names))


def _pyarrow() -> ModuleType:
    return _arrow("pyarrow.parquet")


def _arrow(module: str) -> ModuleType:
    return require(module, purpose="reading Parquet files", extra="train")


SOURCE = Source(
    read=read,
    fingerprint=fingerprint,
    mirror=True,
    settings=ColumnSettings,
    tasks=("single-label", "multilabel"),
)
