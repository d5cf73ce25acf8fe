"""Files under a source's root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json, digest


def require_root(settings: DataSettings, holds: str) -> Path:
    """The folder of a source.

    Args:
        holds: what should be in it, for the message.

    Raises:
        DataError: none was named, or it is no folder.
    """
    if settings.root is None:
        raise DataError(f"the source {settings.source} needs a root", allowed=holds, hint="set data.root")
    if not settings.root.is_dir():
        found = "a file" if settings.root.exists() else "nothing there"
        raise DataError(f"{settings.root} is no folder", found=found, allowed=holds)
    return settings.root


@contextmanager
def clear_read_errors(root: Path) -> Iterator[None]:
    """Raises DataError where a folder below root may not be read, or goes away meanwhile."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read", found=error.strerror) from None


def files_fingerprint(root: Path, files: Iterable[Path]) -> Json:
    """Names, sizes and times of change; a link that leads nowhere counts as itself."""
    rows = []
    for file in files:
        status = file.stat() if file.exists() else file.lstat()
        rows.append([file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return {"files": len(rows), "digest": digest(sorted(rows))}


def decode(file: Path | IO[bytes]) -> Image.Image:
    """A whole image, turned as its EXIF data say. Raises one of edgekd.data.decode.BROKEN."""
    with Image.open(file) as image:
        return ImageOps.exif_transpose(image)
