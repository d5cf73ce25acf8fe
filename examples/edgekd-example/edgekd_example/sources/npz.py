"""One .npz file: `images` (N, H, W) or (N, H, W, 3) uint8, `labels` (N,) integers, `classes` (C,) strings."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekd.data.sources import RawData, Source
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

_HOLDS = "an .npz file with the arrays images, labels and classes"


class NpzSamples:
    """The images of a file, in memory."""

    def __init__(self, file: Path, images: np.ndarray, labels: np.ndarray) -> None:
        self.labels = labels.astype(np.int64)
        self._file = file
        self._images = images

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def name(self, index: int) -> str:
        return f"{self._file.name}[{index}]"


def read(settings: DataSettings) -> RawData:
    """All images as the training split; edgekd splits off validation and test."""
    file = _file(settings)
    try:
        with np.load(file, allow_pickle=False) as content:
            images, labels, classes = content["images"], content["labels"], content["classes"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read", found=str(error), allowed=_HOLDS) from None
    if images.dtype != np.uint8 or images.shape[3:] not in ((), (3,)) or images.ndim < 3:
        found = f"{images.dtype} {images.shape}"
        raise DataError(f"{file}: images have another form", found=found, allowed="uint8 (N, H, W) or (N, H, W, 3)")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{file}: labels have another form", found=found, allowed=f"integers {images.shape[:1]}")
    return RawData(tuple(map(str, classes)), {"train": NpzSamples(file, images, labels)})


def fingerprint(settings: DataSettings) -> dict[str, Any]:
    """Size and time of change: the images are prepared again when the file changes."""
    status = _file(settings).stat()
    return {"size": status.st_size, "changed": status.st_mtime_ns}


def _file(settings: DataSettings) -> Path:
    if settings.root is None or not settings.root.is_file():
        raise DataError("the source npz reads one file", found=settings.root, allowed=_HOLDS, hint="set data.root")
    return settings.root


# It is not known whether mirroring keeps the class; a recipe may set data.augment.flip.
SOURCE = Source(read=read, fingerprint=fingerprint, mirror=False)
