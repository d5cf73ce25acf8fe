"""Files that hold a data set in parts and number them: whether all of them are there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from edgekd.errors import DataError

# train-00000-of-00002, and behind it what makes each file's name unique, as earlier versions of Hugging Face wrote it.
_COUNTED = re.compile(r"(?P<name>.*?)(?P<number>\d+)-of-(?P<count>\d+)(?P<more>.*)")
_NAMED = 5


def check_complete(files: Iterable[Path]) -> None:
    """Check that no part of a numbered series is missing.

    A series is that of one folder: `train-00000-of-00002.parquet`, from 0 or from 1, or `0000.parquet`, `0001.parquet`.

    Args:
        files: of a data set.

    Raises:
        DataError: a file is missing, there twice, or one of a series of another length lies beside the others.
    """
    series: dict[tuple[Path, str], list[tuple[re.Match[str], Path]]] = defaultdict(list)
    plain: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        if (match := _COUNTED.fullmatch(file.stem)) is not None:
            series[file.parent, match["name"]].append((match, file))
        elif re.fullmatch("[0-9]+", file.stem):
            plain[file.parent].append(file)
    for (folder, _), parts in series.items():
        _check_counted(folder, parts)
    for folder, numbered in plain.items():
        _check_gaps(folder, numbered)


def _check_counted(folder: Path, parts: Sequence[tuple[re.Match[str], Path]]) -> None:
    counts = sorted({match["count"] for match, _ in parts})
    names = sorted(file.name for _, file in parts)
    if len(counts) > 1:
        raise DataError(
            f"{folder} holds files of several series, of {' and of '.join(counts)}",
            found=_some(names),
            hint="keep the files of one series",
        )
    by_number = {int(match["number"]): (match, file) for match, file in parts}
    if len(by_number) < len(parts):
        raise DataError(f"{folder} holds a part of a series twice", found=_some(names), hint="keep one of them")
    count = int(counts[0])
    first = 1 if count in by_number else 0
    match, file = parts[0]
    ending = f"-of-{match['count']}{'…' if match['more'] else ''}{file.suffix}"
    missing = (number for number in range(first, first + count) if number not in by_number)
    names_missing = (f"{match['name']}{number:0{len(match['number'])}d}{ending}" for number in missing)
    _refuse_missing(folder, names_missing, f"{len(parts)} of {count}: {_some(names)}")


def _check_gaps(folder: Path, files: Sequence[Path]) -> None:
    """Of files named by numbers of one length, from 0 or 1; other numbers may be years or dates."""
    width, suffix = len(files[0].stem), files[0].suffix
    numbers = {int(file.stem) for file in files}
    if min(numbers) > 1 or any(len(file.stem) != width for file in files):
        return
    missing = (number for number in range(min(numbers), max(numbers)) if number not in numbers)
    names_missing = (f"{number:0{width}d}{suffix}" for number in missing)
    _refuse_missing(folder, names_missing, _some(sorted(file.name for file in files)))


def _refuse_missing(folder: Path, missing: Iterator[str], found: str) -> None:
    first = list(islice(missing, _NAMED + 1))
    if first:
        named = ", ".join(first[:_NAMED]) + (", …" if len(first) > _NAMED else "")
        raise DataError(
            f"{folder} lacks {'a file' if len(first) == 1 else 'files'} of a series: {named}",
            found=found,
            hint="fetch what is missing; or, if it is left out on purpose, give the files names that count no others",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
