"""The files of a split in a data set's folder.

<split>-labels.npy   (N,) int64, always
<split>.npy          (N, H, W, C) uint8, for a cached data set
<split>.json         the source's split and the samples in it, for a streamed data set
<split>-names.json   the images' names, for the test split
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data.sources import Labels
from edgekd.runtime.preprocess import Pixels
from edgekd.store.artifacts import read_as, write_json
from edgekd.store.records import Count, Frozen

Storage = Literal["cached", "streamed"]
_CACHE_BYTES = 4 << 30
_COPIED_AT_ONCE = 1024


class _Streamed(Frozen):
    split: str
    samples: tuple[Count, ...]


class _Names(Frozen):
    names: tuple[str, ...]


def labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def pixels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.npy"


def samples_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.json"


def names_file(folder: Path, split: str) -> Path:
    return folder / f"{split}-names.json"


def check_reopen(stored: Storage, reopen: object) -> None:
    """Raises ValueError where `reopen` is missing for a streamed set, or present for a cached one."""
    if (stored == "streamed") != (reopen is not None):
        raise ValueError(f"storage is {stored!r}, and reopen is {'missing' if reopen is None else 'there'}")


def choose(wanted: Literal["auto", "cached", "streamed"], shape: tuple[int, ...], folder: Path) -> Storage:
    """Resolve "auto": cached below 4 GiB and a third of the disk's free space.

    Args:
        wanted: the recipe's setting.
        shape: of all images together, (N, H, W, C).
        folder: on the disk whose free space counts.
    """
    if wanted != "auto":
        return wanted
    size = math.prod(shape)
    return "cached" if size < min(_CACHE_BYTES, shutil.disk_usage(folder).free / 3) else "streamed"


@contextmanager
def scratch(path: Path, shape: tuple[int, ...]) -> Iterator[Pixels]:
    """A temporary array (N, H, W, C) on the disk. Raises OSError where the disk is full."""
    try:
        yield _allocate(path, shape)
    finally:
        path.unlink(missing_ok=True)


def write_cached(folder: Path, split: str, pixels: Pixels, rows: Labels, labels: Labels) -> None:
    """Raises OSError where the disk is full."""
    stored = _allocate(pixels_file(folder, split), (len(rows), *pixels.shape[1:]))
    for start in range(0, len(rows), _COPIED_AT_ONCE):
        part = slice(start, start + _COPIED_AT_ONCE)
        stored[part] = pixels[rows[part]]
    np.save(labels_file(folder, split), labels)


def write_streamed(folder: Path, split: str, source_split: str, rows: Labels, labels: Labels) -> None:
    """Raises OSError where the disk is full."""
    write_json(samples_file(folder, split), {"split": source_split, "samples": rows.tolist()})
    np.save(labels_file(folder, split), labels)


def read_streamed(folder: Path, split: str) -> tuple[str, Labels]:
    """The source's split, and (N,) int64 samples in it. Raises ArtifactError for a file that is not valid."""
    found = read_as(samples_file(folder, split), _Streamed)
    return found.split, np.asarray(found.samples, dtype=np.int64)


def read_names(folder: Path, split: str) -> tuple[str, ...]:
    """The images' names; none for a split without. Raises ArtifactError for a file that is not valid."""
    file = names_file(folder, split)
    return read_as(file, _Names).names if file.exists() else ()


def write_names(folder: Path, split: str, names: Sequence[str]) -> None:
    """Raises OSError where the disk is full."""
    write_json(names_file(folder, split), {"names": list(names)})


def link_or_copy(file: Path, place: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot link."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _allocate(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Allocate the file on the disk: writing to a memory map on a full disk would kill the process. Raises OSError."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array
