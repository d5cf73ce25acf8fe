"""A folder of images without classes: decoded once, and kept as a pool for semi-supervised training."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydantic import model_validator

from edgekd.data import storage
from edgekd.data.composed import UNLABELLED
from edgekd.data.dataset import CachedSplit, Reopen, Split, StreamedSplit
from edgekd.data.decode import BROKEN_NAMED, check_broken, decode_all
from edgekd.data.sources import Labels
from edgekd.data.sources._files import clear_read_errors, files_fingerprint
from edgekd.data.sources.image_folder import SUFFIXES, FolderSamples
from edgekd.data.storage import Storage
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.preprocess import Pixels
from edgekd.store.artifacts import Artifact, Details, Json, read_json

VERSION = 1
_SPLIT = "unlabelled"


class PoolDetails(Details):
    """What describes a pool.

    Attributes:
        resize: side of the square that each image is scaled to, in pixels.
        count: the number of readable images.
        reopen: for a streamed pool; a cached one has its pixels.
    """

    storage: Storage
    resize: int
    count: int
    reopen: Reopen | None = None

    @model_validator(mode="after")
    def _streamed_pools_reopen(self) -> PoolDetails:
        storage.check_reopen(self.storage, self.reopen)
        return self


class Pool(Artifact[PoolDetails]):
    """Images without labels, scaled like those of the data set that they are used with."""

    kind = "unlabelled-images"

    def open(self) -> Split:
        """The readable images; every label is UNLABELLED.

        Raises:
            DataError: the pool is streamed, and its files were changed or removed.
        """
        reopen = self.details.reopen
        if reopen is None:
            return CachedSplit(self.path, _SPLIT)
        root = Path(reopen.root or "")
        if fingerprint(root) != reopen.fingerprint:
            raise DataError(
                f"the images under {root} were changed since they were prepared",
                hint="run the recipe again: the images are prepared again",
            )
        rows = np.asarray(read_json(storage.samples_file(self.path, _SPLIT))["samples"], dtype=np.int64)
        labels = np.load(storage.labels_file(self.path, _SPLIT))
        return StreamedSplit(_samples(root), rows, labels, self.details.resize)


def fingerprint(root: Path) -> Json:
    """Names, sizes and times of change of the images below a folder. Raises DataError where there are none."""
    files = _files(root)
    with clear_read_errors(root):
        return files_fingerprint(root, files)


def prepare_pool(
    root: Path, settings: DataSettings, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> Pool:
    """Decode a folder's images once; which of them are used is decided later.

    Args:
        root: a folder with images at any depth; hidden files are skipped, links to folders are not followed.
        settings: of the data set that they are used with: image size, storage, accepted fraction of broken images.
        out: an empty folder, which becomes the pool.
        progress: called with (images decoded, images in total).

    Raises:
        DataError: not a folder, no images, or too many broken ones.
        OSError: the disk is full.
    """
    samples, side = _samples(root), settings.preprocessing.resize
    stored = storage.choose(settings.storage, len(samples), side, out)
    room = storage.scratch(out / ".decoded.npy", len(samples), side) if stored == "cached" else nullcontext()
    with room as pixels:
        rows, problems = _decode(samples, side, pixels, progress)
        check_broken(problems, len(samples), settings.broken, where=f" under {root}")
        labels = np.full(len(rows), UNLABELLED, dtype=np.int64)
        if pixels is not None:
            storage.write_cached(out, _SPLIT, pixels, rows, labels)
        else:
            storage.write_streamed(out, _SPLIT, _SPLIT, rows, labels)
    reopen = None
    if stored == "streamed":
        reopen = Reopen(root=str(root.absolute()), fingerprint=fingerprint(root))
    details = PoolDetails(storage=stored, resize=side, count=len(rows), reopen=reopen)
    broken = {"count": len(problems), "examples": problems[:BROKEN_NAMED]}
    return Pool.seal(out, details=details, metrics={"broken": broken})


def _samples(root: Path) -> FolderSamples:
    files = [file.relative_to(root).as_posix() for file in _files(root)]
    return FolderSamples(root, files, np.full(len(files), UNLABELLED, dtype=np.int64))


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        found = "a file" if root.exists() else f"nothing at {root.absolute()}"
        raise DataError(f"{root} is not a folder", found=found, allowed="a folder of images, at any depth")
    with clear_read_errors(root):
        files = sorted(_walk(root))
    if not files:
        raise DataError(f"{root} has no images", allowed=f"files {', '.join(SUFFIXES)}, at any depth")
    return files


def _walk(root: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error

    files: list[Path] = []
    for folder, inner, names in os.walk(root, onerror=fail):
        inner[:] = [name for name in inner if name[0] != "."]
        files += [Path(folder, name) for name in names if name[0] != "." and Path(name).suffix.lower() in SUFFIXES]
    return files


def _decode(
    samples: FolderSamples, side: int, pixels: Pixels | None, progress: Callable[[int, int], None] | None
) -> tuple[Labels, list[str]]:
    """Which images can be read, and one line for each that cannot."""
    rows: list[int] = []
    problems: list[str] = []
    for row, decoded in enumerate(decode_all([samples], side, pixels=pixels is not None, progress=progress)):
        if decoded.content is None:
            problems.append(decoded.problem)
            continue
        rows.append(row)
        if pixels is not None and decoded.pixels is not None:
            pixels[row] = decoded.pixels
    return np.asarray(rows, dtype=np.int64), problems
