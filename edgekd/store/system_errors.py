"""The system's errors about disk and memory as edgekd's own."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from edgekd import units
from edgekd.errors import OutOfMemoryError, StoreError

# No right to write, or something else is where a folder or a file has to be.
_UNWRITABLE = {errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}

_SHORT = re.compile(r"\d+ requested and \d+ written")


@contextmanager
def clear_system_errors(root: Path) -> Iterator[None]:
    """Turns the system's errors about disk and memory into StoreError and OutOfMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # PyTorch raises a RuntimeError, on a GPU a subclass of it; this module does not import PyTorch.
        known = type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
        if not known and not isinstance(error, MemoryError):
            raise
        raise _out_of_memory(error) from error
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise _out_of_memory(error) from error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # safetensors reports the system's error only as text, NumPy not at all: how much it wrote of an array.
        if full or os.strerror(errno.ENOSPC) in str(error) or _SHORT.fullmatch(str(error)):
            place = _fullest(root)
            raise StoreError(
                f"no room left on the disk of {place}",
                found=f"{units.size(_free_bytes(place))} free",
                hint="free some space and run the same command again: finished stages and epochs are kept",
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno in _UNWRITABLE and _concerns(error.filename, root):
            raise StoreError(
                f"{error.filename} cannot be written: {error.strerror}", hint="name another folder with --out"
            ) from error
        raise


def _out_of_memory(error: BaseException) -> OutOfMemoryError:
    return OutOfMemoryError(
        "this machine has too little memory for this stage",
        found=str(error) or type(error).__name__,
        hint="use a smaller batch_size (finished stages are kept), or data.storage: streamed (runs from the data on)",
    )


def _concerns(filename: object, root: Path) -> bool:
    """Whether a file lies in the run's folder, or is where a folder above it has to be."""
    if not isinstance(filename, (str, os.PathLike)):
        return False
    file, folder = Path(filename).absolute(), root.absolute()
    return file.is_relative_to(folder) or folder.is_relative_to(file)


def _fullest(root: Path) -> Path:
    """The run's folder, or the one of temporary files where that has less room."""
    return min(root, Path(tempfile.gettempdir()), key=_free_bytes)


def _free_bytes(path: Path) -> int:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
