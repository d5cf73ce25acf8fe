"""What a file of torch.save is made of: its pickle's instructions are read, and none is carried out."""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import zipfile
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch

# The attributes under which an nn.Module keeps its tensors and layers.
_PARTS = frozenset({"_parameters", "_buffers", "_modules"})
# An old file has three pickles before the object's: a magic number, a version, and the sizes of numbers.
_HEADERS = 3


@dataclass(frozen=True)
class Contents:
    """What is in a file of torch.save.

    Attributes:
        unsafe: names of the classes and functions that torch.load refuses unless they are allowed by name.
        module: the class of the first network that was pickled whole; None where there is none.
        torchscript: whether it is an archive of torch.jit.save.
    """

    unsafe: tuple[str, ...] = ()
    module: str | None = None
    torchscript: bool = False


def contents_of(path: Path) -> Contents:
    """What is in a file of torch.save, in its present or its older format; nothing for a damaged or another file."""
    try:
        archived = zipfile.is_zipfile(path)
        if archived and _is_torchscript(path):
            return Contents(torchscript=True)
        stream = _archived_pickle(path) if archived else _old_pickle(path)
        # The function knows the present format only, and only it knows what torch.load makes of a name.
        file = path if archived else _as_archive(stream)
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        return Contents(tuple(sorted(unsafe)), _module_in(stream))
    except (ValueError, RuntimeError, OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error):
        return Contents()


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _archived_pickle(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if name is None:
            raise ValueError("no pickle")
        return archive.read(name)


def _old_pickle(path: Path) -> bytes:
    # Mapped: behind the pickle are the tensors' bytes, and a damaged length must not allocate memory.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for _ in range(_HEADERS):
            _skip(mapped)
        start = mapped.tell()
        _skip(mapped)
        return mapped[start : mapped.tell()]


def _skip(mapped: mmap.mmap) -> None:
    deque(pickletools.genops(mapped), maxlen=0)  # type: ignore[arg-type]  # it is read as a file is


def _as_archive(stream: bytes) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/version", "3\n")
    made.seek(0)
    return made


def _module_in(stream: bytes) -> str | None:
    named = built = owner = None
    seen = set()
    for instruction, argument, _ in pickletools.genops(stream):
        if instruction.name == "GLOBAL":
            named = str(argument).replace(" ", ".")
        elif instruction.name == "NEWOBJ":
            built = named
        elif isinstance(argument, str) and argument in _PARTS:
            seen.add(argument)
            owner = owner or built
    return (owner or "torch.nn.Module") if seen == _PARTS else None
