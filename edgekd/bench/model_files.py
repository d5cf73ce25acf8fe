"""The files of a model that is measured: their digest and their size."""

from __future__ import annotations

import hashlib
import mmap
import re
from pathlib import Path

from edgekd.bench.measurement import ModelFile
from edgekd.errors import BenchError
from edgekd.runtime.backends import GRAPH

# StringStringEntryProto: field 1, the key "location"; field 2, a string, whose length has 7 bits in each byte.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])", re.DOTALL)


def model_file(file: Path) -> ModelFile:
    """The record of a model's file, with its data files. Raises BenchError where one of these is missing."""
    sha, parts = hashlib.sha256(), (file, *external_data(file))
    for part in parts:
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return ModelFile(
        name=file.name,
        sha256=sha.hexdigest(),
        size_bytes=sum(part.stat().st_size for part in parts),
        data=tuple(part.name for part in parts[1:]),
    )


def external_data(file: Path) -> tuple[Path, ...]:
    """The files in which an .onnx file keeps its weights, in the order of their names.

    They are found by their entries in the file's bytes (TensorProto.external_data, key "location"), because a device
    has no onnx package.

    Raises:
        BenchError: one of them is missing.
    """
    if file.suffix != GRAPH:
        return ()
    names: set[str] = set()
    with file.open("rb") as stream:
        if not stream.seek(0, 2):
            return ()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for found in _LOCATION.finditer(content):
                length = found[1][0] if len(found[1]) == 1 else (found[1][0] & 0x7F) | found[1][1] << 7
                names.add(content[found.end() : found.end() + length].decode("utf-8", "replace"))
    files = tuple(sorted(file.parent / name for name in names))
    if missing := [path.name for path in files if not path.is_file()]:
        raise BenchError(
            f"{file} has weights in another file that is missing",
            found=", ".join(missing),
            hint="keep it beside the graph, as it was written",
        )
    return files
