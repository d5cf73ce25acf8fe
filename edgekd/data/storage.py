"""How a split lies in a data set's folder.

<split>-labels.npy   (N,) int64, always
<split>.npy          (N, resize, resize, 3) uint8, where the set is cached
<split>.json         which split of the source, and which of its samples, where the set is streamed
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data.sources import Labels
from edgekd.runtime.preprocess import Pixels
from edgekd.store.artifacts import write_json

Storage = Literal["cached", "streamed"]
_CACHE_BYTES = 4 << 30
_COPIED_AT_ONCE = 1024


def labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def pixels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.npy"


def samples_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.json"


def check_reopen(stored: Storage, reopen: object) -> None:
    """Raises ValueError where a streamed set does not tell where its images lie, or a cached one does."""
    if (stored == "streamed") != (reopen is not None):
        raise ValueError(f"storage is {stored!r}, and reopen is {'missing' if reopen is None else 'there'}")


def choose(wanted: Literal["auto", "cached", "streamed"], count: int, side: int, folder: Path) -> Storage:
    """What "auto" means: cached below 4 GiB and a third of the disk's free room."""
    if wanted != "auto":
        return wanted
    size = count * side * side * 3
    return "cached" if size < min(_CACHE_BYTES, shutil.disk_usage(folder).free / 3) else "streamed"


@contextmanager
def scratch(path: Path, count: int, side: int) -> Iterator[Pixels]:
    """An array (count, side, side, 3) on the disk that is gone afterwards."""
    try:
        yield _allocate(path, (count, side, side, 3))
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


def link_or_copy(file: Path, place: Path) -> None:
    """The same file under a second name, without its bytes twice where the file system can."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _allocate(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Raises OSError where there is no room: writing to a map of a full disk would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array
