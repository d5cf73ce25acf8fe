"""The files of a model that is measured: their digest and size, and what their weights say about its speed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from edgekd.bench.measurement import ModelFile
from edgekd.bench.onnx_tensors import StoredTensor, stored_tensors
from edgekd.bench.subnormals import subnormal_weights
from edgekd.errors import BenchError
from edgekd.runtime.backends import GRAPH


def model_file(file: Path) -> ModelFile:
    """The record of a model's file, with its data files. Raises as external_data()."""
    tensors = _tensors(file)
    parts = (file, *external_data(file, tensors))
    return ModelFile(
        name=file.name,
        sha256=sha256(parts),
        size_bytes=sum(part.stat().st_size for part in parts),
        data=tuple(part.name for part in parts[1:]),
        subnormal_weights=subnormal_weights(tensors, file.parent),
    )


def sha256(files: Iterable[Path]) -> str:
    """The digest of all files' bytes, one after another."""
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def external_data(file: Path, tensors: list[StoredTensor]) -> tuple[Path, ...]:
    """The files in which an .onnx file keeps its weights, in the order of their names.

    Raises:
        BenchError: one of them is missing, or would lie outside the graph's folder.
    """
    names = sorted({tensor.external["location"] for tensor in tensors if "location" in tensor.external})
    if outside := [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        raise BenchError(
            f"{file} has weights in a file outside its folder",
            found=", ".join(outside),
            allowed="files beside the graph, or in folders there",
            hint="save the graph again, with its weights beside it",
        )
    files = tuple(file.parent / name for name in names)
    if missing := [path.name for path in files if not path.is_file()]:
        raise BenchError(
            f"{file} has weights in another file that is missing",
            found=", ".join(missing),
            hint="keep it beside the graph, as it was written",
        )
    return files


def _tensors(file: Path) -> list[StoredTensor]:
    if file.suffix.lower() == GRAPH:
        with suppress(ValueError):  # a damaged graph, which the engine refuses with its reason
            return stored_tensors(file)
    return []
