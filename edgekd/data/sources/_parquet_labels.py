"""Labels in a column of a Parquet file: whole numbers or text, or lists of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgekd.data.class_names import check_known
from edgekd.data.class_order import arranged
from edgekd.data.sources import Labels
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings, Task

ALLOWED: dict[Task, str] = {
    "single-label": "whole numbers or text",
    "multilabel": "lists of whole numbers or of text",
}


@dataclass(frozen=True)
class Column:
    """The labels of a file, or of several.

    Attributes:
        labels: (N,), or (N, C) with several labels per image.
        names: of the labels; None where they are numbers without names.
        by_name: whether the labels are text: then their numbers are positions in `names`, which are sorted.
    """

    labels: Labels
    names: tuple[str, ...] | None
    by_name: bool


def is_number(types: ModuleType, column: Any, task: Task) -> bool:
    """Whether a column's type is whole numbers, with several labels per image lists of them."""
    value = _value(types, column, task)
    return value is not None and bool(types.is_integer(value))


def is_text(types: ModuleType, column: Any, task: Task) -> bool:
    """Whether a column's type is text, with several labels per image lists of it."""
    value = _value(types, column, task)
    if value is not None and types.is_dictionary(value):
        value = value.value_type
    return value is not None and bool(types.is_string(value) or types.is_large_string(value))


def read_column(path: Path, column: Any, names: tuple[str, ...] | None, task: Task, *, text: bool) -> Column:
    """The labels of a file; spaces around text do not count.

    Args:
        path: of the file, for messages.
        column: Arrow's, of text or whole numbers, or of lists of one.
        names: of the labels, where they are numbers with names.
        task: whether an image has one label or several.
        text: whether the labels are text.

    Raises:
        DataError: a row without a label; in a list no label, or a negative number.
    """
    if column.null_count:
        raise _without_label(path, column.null_count, len(column))
    if task == "multilabel":
        return _sets(path, column.to_pylist(), names, text=text)
    if not text:
        return Column(column.to_numpy().astype(np.int64), names, False)
    values = [value.strip() for value in column.to_pylist()]
    if empty := values.count(""):
        raise _without_label(path, empty, len(values))
    vocabulary, numbers = _numbered(values)
    return Column(numbers, vocabulary, True)


def names_in(path: Path, schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of the classes in a file's metadata of Hugging Face's; None where it has none.

    Raises:
        DataError: the metadata are not valid.
    """
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


def joined(paths: Sequence[Path], parts: Sequence[Column]) -> Column:
    """The labels of the files of a split, one behind the other.

    Raises:
        DataError: some are text and others numbers, or the files name different classes.
    """
    if len({part.by_name for part in parts}) > 1:
        raise DataError("some Parquet files of one split have labels as text, others as numbers", found=_files(paths))
    if parts[0].by_name:
        names = tuple(sorted({name for part in parts for name in part.names or ()}))
        return Column(np.concatenate([_moved(part, names) for part in parts]), names, True)
    if len({part.names for part in parts}) != 1:
        raise DataError("the Parquet files of one split name different classes", found=_files(paths))
    labels = [part.labels for part in parts]
    if labels[0].ndim == 2:
        width = max(each.shape[1] for each in labels)
        labels = [np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in labels]
    return Column(np.concatenate(labels), parts[0].names, False)


def classes_of(train: Column, settings: DataSettings) -> tuple[str, ...]:
    """The classes in the order of the labels: text as the recipe states, numbers by themselves.

    Raises:
        DataError: the recipe states an order, and the labels are numbers; or it names other classes.
    """
    if train.by_name:
        return arranged(train.names or (), settings)
    if stated := [
        key for key in ("classes", "class_order") if getattr(settings, key) != DataSettings.model_fields[key].default
    ]:
        raise DataError(
            f"data.{stated[0]} orders classes that are known by name, and the labels are whole numbers",
            hint=f"remove data.{stated[0]}: the numbers are the order",
        )
    if train.names is not None:
        return train.names
    count = train.labels.shape[1] if train.labels.ndim == 2 else int(train.labels.max(initial=-1)) + 1
    return tuple(str(label) for label in range(count))


def in_classes(split: str, column: Column, train: Column, classes: tuple[str, ...]) -> Labels:
    """A split's labels as positions in the classes, with several per image (N, C).

    Raises:
        DataError: labels of another kind, or classes that train lacks.
    """
    labels = column.labels
    if column.by_name != train.by_name:
        raise DataError(f"the labels of the {split} split are {_kind(column)}, and those of train {_kind(train)}")
    if column.by_name:
        check_known(column.names or (), classes, split=split, remedy="remove their rows")
        return _moved(column, classes)
    if column.names not in (None, classes):
        raise DataError("the Parquet files name different classes", found=f"train and {split}")
    if labels.ndim == 1:
        return labels
    if labels.shape[1] > len(classes):
        raise DataError(
            f"the {split} split has labels outside the classes",
            found=labels.shape[1] - 1,
            allowed=f"0 to {len(classes) - 1}",
        )
    return np.pad(labels, ((0, 0), (0, len(classes) - labels.shape[1])))


def _value(types: ModuleType, column: Any, task: Task) -> Any:
    """The type of a label: of the column, or of the items of its lists; None where it has no lists."""
    if task == "single-label":
        return column
    lists = types.is_list(column) or types.is_large_list(column) or types.is_fixed_size_list(column)
    return column.value_type if lists else None


def _sets(path: Path, rows: Sequence[Sequence[Any]], names: tuple[str, ...] | None, *, text: bool) -> Column:
    """(N, C), 1 where a row's list has the label; C is the number of names, or the largest number + 1."""
    values = [value for row in rows for value in row]
    if text:
        values = [value and value.strip() for value in values]
    if wrong := [value for value in values if value in (None, "") or (not text and value < 0)]:
        raise DataError(f"{path} has labels that are no classes", found=repr(wrong[0]), allowed="text, or 0 and above")
    vocabulary, numbers = _numbered(values) if text else (names, np.array(values, dtype=np.int64))
    width = len(vocabulary or ()) if text else int(numbers.max(initial=-1)) + 1
    sets: Labels = np.zeros((len(rows), width), dtype=np.int64)
    sets[np.repeat(np.arange(len(rows)), [len(row) for row in rows]), numbers] = 1
    return Column(sets, vocabulary, text)


def _numbered(values: Sequence[str]) -> tuple[tuple[str, ...], Labels]:
    """The different names, sorted, and the position of each value in them."""
    names = tuple(sorted(set(values)))
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places[value] for value in values], dtype=np.int64)


def _without_label(path: Path, count: int, rows: int) -> DataError:
    return DataError(f"{path} has rows without a label", found=f"{count} of {rows}")


def _moved(column: Column, names: tuple[str, ...]) -> Labels:
    """Labels by name as positions in other names, which have all of them."""
    places = {name: place for place, name in enumerate(names)}
    to = np.array([places[name] for name in column.names or ()], dtype=np.int64)
    if column.labels.ndim == 1:
        moved: Labels = to[column.labels]
        return moved
    sets: Labels = np.zeros((len(column.labels), len(names)), dtype=np.int64)
    sets[:, to] = column.labels
    return sets


def _kind(column: Column) -> str:
    return "text" if column.by_name else "numbers"


def _files(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
