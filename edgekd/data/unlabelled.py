"""A folder of images without classes, and the pool for semi-supervised training that it is decoded into, once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydantic import model_validator

from edgekd.data import quality, storage
from edgekd.data.dataset import CachedSplit, Reopen, Split, StreamedSplit
from edgekd.data.decode import BROKEN_NAMED, check_broken, check_range, decode_all
from edgekd.data.sources import UNLABELLED, Labels
from edgekd.data.sources.image_folder import FolderSamples
from edgekd.data.sources.unlabelled import content_of, find, samples_of
from edgekd.data.storage import Storage
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.preprocess import Pixels, Preprocessing
from edgekd.store.artifacts import Artifact, Details

VERSION = 5
_SPLIT = "unlabelled"


class PoolDetails(Details):
    """What describes a pool.

    Attributes:
        preprocessing: of the squares that the images are scaled to.
        count: the number of readable images.
        reopen: for a streamed pool; a cached one has its pixels.
    """

    storage: Storage
    preprocessing: Preprocessing
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
        if content_of(root) != reopen.fingerprint:
            raise DataError(
                f"the images under {root} were changed since they were prepared",
                hint="run the recipe again: the images are prepared again",
            )
        _, rows = storage.read_streamed(self.path, _SPLIT)
        labels = np.load(storage.labels_file(self.path, _SPLIT))
        return StreamedSplit(samples_of(root, find(root)), rows, labels, self.details.preprocessing)


def prepare_pool(
    root: Path,
    settings: DataSettings,
    preprocessing: Preprocessing,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Decode a folder's images once; which of them are used is decided later.

    Args:
        root: a folder with images at any depth; see edgekd.runtime.images.
        settings: of the data set that they are used with: storage, accepted fraction of broken images.
        preprocessing: of that data set.
        out: an empty folder, which becomes the pool.
        progress: called with (images decoded, images in total).

    Raises:
        DataError: not a folder, no images, too many broken ones, or some with values outside of the data set's range.
        OSError: the disk is full.
    """
    found = find(root)
    samples = samples_of(root, found)
    shape = (len(samples), *preprocessing.stored)
    stored = storage.choose(settings.storage, shape, out)
    room = storage.scratch(out / ".decoded.npy", shape) if stored == "cached" else nullcontext()
    with room as pixels:
        rows, problems, outside = _decode(samples, preprocessing, pixels, progress)
        check_broken(problems, len(samples), settings.broken, where=f" under {root}")
        check_range(outside, len(samples), preprocessing.white, where=f" under {root}")
        labels = np.full(len(rows), UNLABELLED, dtype=np.int64)
        if pixels is not None:
            storage.write_cached(out, _SPLIT, pixels, rows, labels)
        else:
            storage.write_streamed(out, _SPLIT, _SPLIT, rows, labels)
    reopen = None
    if stored == "streamed":
        reopen = Reopen(root=str(root.absolute()), fingerprint=content_of(root))
    details = PoolDetails(storage=stored, preprocessing=preprocessing, count=len(rows), reopen=reopen)
    metrics = {
        "broken": {"count": len(problems), "examples": problems[:BROKEN_NAMED]},
        "left_out": str(found.left_out),
        "warnings": quality.broken(problems),
    }
    return Pool.seal(out, details=details, metrics=metrics)


def _decode(
    samples: FolderSamples,
    preprocessing: Preprocessing,
    pixels: Pixels | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[Labels, list[str], list[str]]:
    """Which images can be read; one line for each that cannot, and for each with values outside of its range."""
    rows: list[int] = []
    problems: list[str] = []
    outside: list[str] = []
    for row, decoded in enumerate(decode_all([samples], preprocessing, pixels=pixels is not None, progress=progress)):
        if decoded.content is None:
            problems.append(decoded.problem)
            continue
        outside += [decoded.outside] if decoded.outside else []
        rows.append(row)
        if pixels is not None and decoded.pixels is not None:
            pixels[row] = decoded.pixels
    return np.asarray(rows, dtype=np.int64), problems, outside
