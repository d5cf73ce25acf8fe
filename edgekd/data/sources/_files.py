"""Files under a source's root."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgekd.data.sources import SplitName
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json, digest

# The names of splits in folders and tables, in lower case.
SPLIT_WORDS: Mapping[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def require_file(settings: DataSettings, holds: str) -> Path:
    """The file of a source.

    Args:
        holds: what the file should contain, for the message.

    Raises:
        DataError: no root is set, or it is not a file.
    """
    if settings.root is None:
        raise DataError(f"the source {settings.source} needs a root", allowed=holds, hint="set data.root to the file")
    if not settings.root.is_file():
        folder = settings.root.is_dir()
        inside = sorted(file.name for file in settings.root.glob("*.[ct]sv")) if folder else []
        raise DataError(
            f"data.root: {settings.root} is not a file",
            found="a folder" if folder else f"nothing at {settings.root.absolute()}",
            allowed=holds,
            hint=f"set data.root to {' or '.join(inside[:3])} in it" if inside else None,
        )
    return settings.root


def require_root(settings: DataSettings, holds: str) -> Path:
    """The folder of a source.

    Args:
        holds: what the folder should contain, for the message.

    Raises:
        DataError: no root is set, or it is not a folder.
    """
    if settings.root is None:
        raise DataError(f"the source {settings.source} needs a root", allowed=holds, hint="set data.root")
    if not settings.root.is_dir():
        found = "a file" if settings.root.exists() else f"nothing at {settings.root.absolute()}"
        raise DataError(f"data.root: {settings.root} is not a folder", found=found, allowed=holds)
    return settings.root


def files_fingerprint(root: Path, files: Iterable[Path]) -> Json:
    """A digest of the files' names, sizes and times of change; a broken link counts as a file."""
    rows = []
    for file in files:
        status = file.stat() if os.path.exists(file) else file.lstat()
        rows.append([file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return {"files": len(rows), "digest": digest(sorted(rows))}
