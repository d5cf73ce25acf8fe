"""Inference engines, a file each. A backend's file has these names:

SUFFIXES: tuple[str, ...]                       the model files it opens
VARIANTS: tuple[str, ...]                       a bundle's variants, the one it runs best first
why_not() -> str | None                         why it cannot be used here; None where it can
open(path, *, threads=None) -> Session          Raises BackendError where the model cannot be run

and, where it runs files that were built from a bundle's graphs instead of the graphs themselves:
built(manifest) -> dict[str, Path]              the files that were built here, by variant
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.errors import BackendError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. A dimension is a number, or a name where it is dynamic; `dtype` is NumPy's name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Session(Protocol):
    """A model that is loaded and ready.

    Attributes:
        engine: the engine's name and version, e.g. "onnxruntime 1.31.1".
        device: what it runs on, e.g. "cpu".
    """

    engine: str
    device: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def bind(self, array: Array) -> Callable[[], Array]:
        """A call of no arguments that runs the model on `array` once and returns its first output."""
        ...


def choose(path: Path, name: str | None = None) -> str:
    """The backend that opens `path`: the named one, or the first usable one that knows the suffix.

    Raises:
        UnknownNameError: no such backend.
        BackendError: none that opens this kind of file can be used here.
    """
    if name is not None:
        module = plugins.load("backend", name)
        if (reason := module.why_not()) is not None:
            raise BackendError(f"the backend {name} cannot be used here", found=reason)
        return name
    reasons = []
    for candidate in plugins.names("backend"):
        module = plugins.load("backend", candidate)
        if path.suffix not in module.SUFFIXES:
            continue
        if (reason := module.why_not()) is None:
            return candidate
        reasons.append(f"{candidate}: {reason}")
    suffixes = sorted({s for n in plugins.names("backend") for s in plugins.load("backend", n).SUFFIXES})
    raise BackendError(
        f"no engine here opens {path.name}", found="; ".join(reasons) or None, allowed=f"files {', '.join(suffixes)}"
    )


def open_session(path: Path, *, backend: str | None = None, threads: int | None = None) -> Session:
    """Load a model file into an engine.

    Raises:
        BackendError: no usable engine, or the engine refuses the file.
    """
    if not path.is_file():
        raise BackendError(f"{path} is not there", hint="name an .onnx file, an engine or a bundle folder")
    session: Session = plugins.load("backend", choose(path, backend)).open(path, threads=threads)
    return session


def checked_input(array: Array, info: TensorInfo) -> Array:
    """`array` in the input's dtype, contiguous.

    Raises:
        BackendError: its shape does not fit the input.
    """
    fits = len(array.shape) == len(info.shape) and all(
        not isinstance(wanted, int) or wanted == found for wanted, found in zip(info.shape, array.shape, strict=True)
    )
    if not fits:
        shape = ", ".join(str(size) for size in info.shape)
        raise BackendError(f"the input {info.name!r} has another shape", found=array.shape, allowed=f"({shape})")
    return np.ascontiguousarray(array, dtype=info.dtype)
