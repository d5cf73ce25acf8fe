"""Tables of images and labels in a text file (CSV): one header, one row per image. Standard library only."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.errors import DataError
from edgekd.wording import counted

Delimiter = Literal[",", ";", "tab"]
_DELIMITERS: Mapping[str, str] = {",": ",", ";": ";", "tab": "\t"}
IMAGE_NAMES = ("file", "filename", "file_name", "path", "filepath", "file_path", "image", "image_path", "img")
LABEL_NAMES = ("label", "class", "category", "target")
SPLIT_NAMES = ("split",)
_ZERO, _ONE = ("0", "0.0"), ("1", "1.0")
_NAMED = 5
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Column:
    """A column as a recipe asks for it.

    Attributes:
        setting: that names it, for messages, e.g. "label_column".
        name: as in the header; None: the one with a usual name.
        usual: the usual names, compared without case.
    """

    setting: str
    name: str | None
    usual: tuple[str, ...]

    def places(self, header: Sequence[str]) -> list[int]:
        """Where the header has it."""
        if self.name is not None:
            return [place for place, title in enumerate(header) if title == self.name]
        return [place for place, title in enumerate(header) if title.lower() in self.usual]


@dataclass(frozen=True)
class Row:
    """A row's values without the spaces around them, and the line of the file that it ends in."""

    line: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A file's header and its rows, each with as many values as the header has titles."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def place(self, column: Column) -> int:
        """The position of a column.

        Raises:
            DataError: the header does not have it, or has several of its usual names.
        """
        found = column.places(self.header)
        if len(found) == 1:
            return found[0]
        what = f"{column.setting.partition('_')[0]} column" + (f" {column.name!r}" if column.name else "")
        usual = f"one of {', '.join(column.usual)}, or another with data.{column.setting}"
        if not found:
            raise DataError(
                f"the header of {self.path} has no {what}",
                found=_some(self.header),
                allowed=f"one of {', '.join(self.header)}" if column.name else usual,
                hint=None if column.name else "the first line must be a header, e.g. file,label",
            )
        raise DataError(
            f"the header of {self.path} has more than one {what}",
            found=_some([self.header[place] for place in found]),
            hint=f"name one: data.{column.setting}",
        )

    def values(self, place: int, what: str) -> list[str]:
        """A column's values, row by row. Raises DataError where one is empty; `what` is the column, for the message."""
        values = [row.values[place] for row in self.rows]
        if empty := [row.line for row, value in zip(self.rows, values, strict=True) if not value]:
            raise DataError(
                f"{self.path} has rows without a {what}",
                found=f"{len(empty)} of {len(values)}: {_lines(empty)}",
                hint="fill them in, or remove the rows",
            )
        return values


def read_table(path: Path, columns: Sequence[Column], delimiter: Delimiter | None = None) -> Table:
    """Read a table of text: UTF-8, or UTF-16 with a byte-order mark; quoted values may hold delimiters and line ends.

    Args:
        path: the file.
        columns: that are needed; they decide the delimiter where the header could be split in several ways.
        delimiter: between the values; None: the one of comma, semicolon and tab that the header has.

    Raises:
        DataError: the file cannot be read, is not such a table, has two titles that are equal, or rows of another
            length than its header; or the delimiter cannot be told.
    """
    text = _text(path)
    chosen = _DELIMITERS[delimiter] if delimiter is not None else _delimiter(path, text, columns)
    rows = [Row(line, values) for line, values in _parsed(path, text, chosen) if any(values)]
    if not rows:
        raise DataError(f"{path} is empty", allowed="a header, e.g. file,label, and one line per image")
    header, body = rows[0].values, tuple(rows[1:])
    if twice := [title for title, count in Counter(header).items() if title and count > 1]:
        raise DataError(f"the header of {path} has columns of the same name", found=_some(twice))
    if wrong := [row for row in body if len(row.values) != len(header)]:
        raise DataError(
            f"{path} has rows of another length than its header",
            found=f"{len(wrong)} of {len(body)}; line {wrong[0].line} has {counted(len(wrong[0].values), 'value')}",
            allowed=f"{len(header)}: {_some(header)}",
            hint="quote values that contain the delimiter",
        )
    if not body:
        raise DataError(f"{path} has a header, but no rows", found=_some(header))
    return Table(path, header, body)


def measured_rows(table: Table) -> tuple[Table, str]:
    """The rows of the test split, and its name, where a table has some: others may have been trained on. Else all."""
    places = Column("split_column", None, SPLIT_NAMES).places(table.header)
    rows = tuple(row for row in table.rows if any(row.values[place].lower() == "test" for place in places))
    return (Table(table.path, table.header, rows), "test") if rows else (table, "")


def files_in(table: Table, place: int, *, outside: bool) -> list[str]:
    """The files that a table names: relative to its folder, without "." and "..", or absolute where they lie outside.

    Backslashes are taken for separators where only that gives a file.

    Args:
        table: see read_table().
        place: of the column.
        outside: whether files outside of the table's folder are accepted.

    Raises:
        DataError: a row names no file, or one outside.
    """
    folder = Path(os.path.abspath(table.path)).parent
    files = [_within(folder, value) for value in table.values(place, "file")]
    leaving = [
        f"{row.values[place]} in line {row.line}"
        for row, file in zip(table.rows, files, strict=True)
        if os.path.isabs(file)
    ]
    if leaving and not outside:
        raise DataError(
            f"{table.path} names files outside of its folder",
            found=f"{len(leaving)} of {len(files)}: {_some(leaving)}",
            hint="move the table above the images, or set data.outside_root: true if you know where it comes from",
        )
    return files


def refuse_conflicts(table: Table, files: Sequence[str], labels: Sequence[str]) -> None:
    """Check that rows of the same file have the same label.

    Args:
        table: see read_table().
        files, labels: row by row.

    Raises:
        DataError: a file has two labels.
    """
    first: dict[str, tuple[str, int]] = {}
    conflicts = []
    for row, file, label in zip(table.rows, files, labels, strict=True):
        known, line = first.setdefault(file, (label, row.line))
        if known != label:
            conflicts.append(f"{file}: {known} in line {line}, {label} in line {row.line}")
    if conflicts:
        raise DataError(
            f"{table.path} gives files more than one label",
            found=f"{len(conflicts)}: {_some(conflicts, '; ')}",
            hint="keep one row for each file",
        )


def label_sets(
    table: Table, labels: Column, others: Sequence[Column], separator: str
) -> tuple[list[frozenset[str]], frozenset[str] | None]:
    """The classes of each row, where a row has any number of them.

    Where the table has the column of labels, a value is the names with a separator between them, or empty. Otherwise
    every column but the others is a class, and its values are 0 or 1.

    Args:
        table: see read_table().
        labels: the column of names.
        others: the columns that are no classes.
        separator: between names.

    Returns:
        The classes row by row; and all classes, where the header names them.

    Raises:
        DataError: there is neither, or a value of a class's column is not 0 or 1.
    """
    if labels.name is not None or labels.places(table.header):
        place = table.place(labels)
        values = (row.values[place].split(separator) for row in table.rows)
        return [frozenset(name.strip() for name in each if name.strip()) for each in values], None
    taken = {place for column in others for place in column.places(table.header)}
    places = [place for place, title in enumerate(table.header) if place not in taken and title]
    if not places:
        table.place(labels)  # says what is missing
    for row in table.rows:
        if wrong := [place for place in places if row.values[place] not in _ZERO + _ONE]:
            raise DataError(
                f"{table.path} has values that are not 0 or 1 in a column of a class",
                found=f"{row.values[wrong[0]]!r} in {table.header[wrong[0]]}, line {row.line}",
                allowed=f"one column of names, e.g. {labels.usual[0]}, or columns of 0 and 1",
                hint=f"set data.{labels.setting} to the column of names, or remove columns that are no classes",
            )
    names = {place: table.header[place] for place in places}
    return [
        frozenset(name for place, name in names.items() if row.values[place] in _ONE) for row in table.rows
    ], frozenset(names.values())


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read", found=error.strerror) from None
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in {encoding.removesuffix('-sig').upper()}",
            found=f"byte 0x{content[error.start]:02x} at position {error.start}",
            hint="save it as UTF-8",
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is not a table of text", found="a zero byte")
    return text


def _parsed(path: Path, text: str, delimiter: str) -> Iterable[tuple[int, tuple[str, ...]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for values in reader:
            yield reader.line_num, tuple(value.strip() for value in values)
    except csv.Error as error:
        raise DataError(f"{path} is not a valid table", found=f"{error}, in line {reader.line_num}") from None


def _delimiter(path: Path, text: str, columns: Sequence[Column]) -> str:
    headers = {}
    for delimiter in _DELIMITERS.values():
        with suppress(DataError):  # quotes that fit another delimiter
            header = next((values for _, values in _parsed(path, text, delimiter) if any(values)), ())
            if len(header) > 1:
                headers[delimiter] = header
    fitting = [delimiter for delimiter, header in headers.items() if all(column.places(header) for column in columns)]
    for candidates in (fitting, list(headers)):
        if len(candidates) == 1:
            return candidates[0]
    if not headers:
        raise DataError(
            f"{path} has one column only",
            found=_some(text.splitlines()[:1]) or "an empty file",
            allowed="a header such as file,label, separated by comma, semicolon or tab",
        )
    raise DataError(
        f"the header of {path} can be split in several ways",
        found=_some(text.splitlines()[:1]),
        hint=f"set data.delimiter: one of {', '.join(_DELIMITERS)}",
    )


def _within(folder: Path, value: str) -> str:
    """A path relative to the folder, or an absolute one where it leads out of it."""
    if "\\" in value and not os.path.exists(folder / value) and os.path.exists(folder / value.replace("\\", "/")):
        value = value.replace("\\", "/")
    path = os.path.normpath(folder / value)
    inside = Path(path).is_relative_to(folder) and path != str(folder)
    return Path(path).relative_to(folder).as_posix() if inside else path


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_NAMED]))
    return f"{'line' if len(numbers) == 1 else 'lines'} {shown}" + (", …" if len(numbers) > _NAMED else "")


def _some(values: Sequence[str], between: str = ", ") -> str:
    return between.join(values[:_NAMED]) + (f" and {len(values) - _NAMED} more" if len(values) > _NAMED else "")
