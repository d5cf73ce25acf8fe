"""Inputs from a file: an .npz with one array per input of the model, under the input's name."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.bench.inputs import check_types
from edgekd.bench.measurement import InputFile
from edgekd.bench.model_files import sha256
from edgekd.bench.shapes import shown
from edgekd.errors import BenchError, nearest
from edgekd.runtime.backends import Array, TensorInfo, fits

# What zipfile and NumPy raise for damaged, encrypted (RuntimeError) or otherwise packed archives.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_inputs(file: Path, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    """The arrays of a file, by the name of the input.

    Args:
        file: as numpy.savez writes it. Pickled objects are not loaded.
        inputs: of the model; the arrays must have their names, types and shapes.

    Raises:
        BenchError: the file cannot be read, or it does not fit the model: all mismatches at once.
    """
    check_types(inputs)
    arrays = _arrays(file)
    problems = [problem for info in inputs if (problem := _problem(info, arrays)) is not None]
    names = [info.name for info in inputs]
    for name in arrays.keys() - set(names):
        near = nearest(name, [each for each in names if each not in arrays])
        problems.append(f"{name!r} is no input of the model{f' (did you mean {near!r}?)' if near else ''}")
    if problems:
        raise BenchError(
            f"{file} does not fit the model's inputs",
            found="; ".join(problems),
            allowed=", ".join(f"{info.name} {shown(info.shape)} {info.dtype}" for info in inputs) or "no array",
        )
    return {name: arrays[name] for name in names}


def input_file(file: Path) -> InputFile:
    """The file's name and digest, for the record. Raises BenchError where it cannot be read."""
    try:
        return InputFile(name=file.name, sha256=sha256([file]))
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from None


def _arrays(file: Path) -> dict[str, Array]:
    try:
        if not zipfile.is_zipfile(file):
            raise _unreadable(file, "not an .npz archive" if file.exists() else "no such file")
        with np.load(file, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unreadable(file, "Python objects" if "allow_pickle" in reason else reason) from None
    except MemoryError:
        raise _unreadable(file, "more than fits into memory") from None
    if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise _unreadable(file, f"files that are no arrays: {', '.join(others)}")
    return arrays


def _unreadable(file: Path, found: str) -> BenchError:
    return BenchError(
        f"{file} cannot be read as inputs",
        found=found,
        allowed="an .npz file with one array per input of the model",
        hint="write it with numpy.savez(file, NAME=array, …)",
    )


def _problem(info: TensorInfo, arrays: Mapping[str, Array]) -> str | None:
    if info.name not in arrays:
        return f"{info.name!r} is missing"
    array = arrays[info.name]
    dtype = "str" if array.dtype.kind == "U" else array.dtype.newbyteorder("=").name
    if dtype != info.dtype:
        return f"{info.name!r} is {dtype}, the model takes {info.dtype}"
    if not fits(array.shape, info.shape):
        return f"{info.name!r} has the shape {shown(array.shape)}, the model takes {shown(info.shape)}"
    if not array.size and 0 not in info.shape:
        return f"{info.name!r} is empty: {shown(array.shape)}"
    return None
