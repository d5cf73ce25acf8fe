"""Images without labels, at any depth below a folder: its folders are no classes.

A trained student is quantized on them, and measured by how often it agrees with itself in float. What an image is:
edgekd.runtime.images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.data.sources import UNLABELLED, RawData, Source
from edgekd.data.sources._files import files_fingerprint, require_root
from edgekd.data.sources.image_folder import FolderSamples
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.images import SUFFIXES, Found, clear_read_errors, find_images
from edgekd.store.artifacts import Json

_HOLDS = "a folder of images, at any depth"


def fingerprint(settings: DataSettings) -> Json:
    """The paths, sizes and times of the image files; their content is not read.

    Args:
        settings: of the data; its root is the folder of images.

    Raises:
        DataError: there is no root, or no image in it.
    """
    return content_of(require_root(settings, _HOLDS))


def read(settings: DataSettings) -> RawData:
    """All images, in one split; they are decoded later, one by one.

    Args:
        settings: of the data; its root is the folder of images, its classes those that the student answers with.

    Raises:
        DataError: there is no root, or no image in it.
    """
    root = require_root(settings, _HOLDS)
    found = find(root)
    return RawData(settings.classes or (), {"train": samples_of(root, found)}, found.left_out, labelled=False)


def content_of(root: Path) -> Json:
    """Names, sizes and times of change of the images below a folder. Raises DataError where there are none."""
    files = find(root).images
    with clear_read_errors(root):
        return files_fingerprint(root, files)


def find(root: Path) -> Found:
    """The images below a folder. Raises DataError where there are none."""
    if not root.is_dir():
        there = "a file" if root.exists() else f"nothing at {root.absolute()}"
        raise DataError(f"{root} is not a folder", found=there, allowed=_HOLDS)
    with clear_read_errors(root):
        found = find_images(root)
    if not found.images:
        allowed = f"files {', '.join(sorted(SUFFIXES))}, or with such content, at any depth"
        raise DataError(f"{root} has no images", found=str(found.left_out) or None, allowed=allowed)
    return found


def samples_of(root: Path, found: Found) -> FolderSamples:
    """The images that find() found under root; every label is UNLABELLED."""
    files = [file.relative_to(root).as_posix() for file in found.images]
    return FolderSamples(root, files, np.full(len(files), UNLABELLED, dtype=np.int64))


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True, labelled=False)
