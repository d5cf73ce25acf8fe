"""Inference engines, one per file: each file exports `BACKEND`, everything that others need to know of its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.errors import BackendError
from edgekd.runtime.bundle import BundleManifest

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]
GRAPH = ".onnx"
# The type of the activations between a graph's layers; uint8 is int8 for engines that are fast on unsigned steps.
Activations = Literal["float32", "float16", "int8", "uint8"]
_Self = TypeVar("_Self", bound="Session")


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. A dimension is a number, or a name where it is dynamic; `dtype` is NumPy's name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Session(Protocol):
    """A model that is loaded and ready; `with` closes it.

    Attributes:
        engine: the engine's name and version, e.g. "onnxruntime 1.31.1".
        device: what it runs on, e.g. "cpu".
        inputs, outputs: in the model's order.
    """

    engine: str
    device: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def bind(self, array: Array) -> Callable[[], Array]:
        """A call of no arguments that runs the model on `array` once and returns its first output.

        Raises:
            BackendError: the model has several inputs, or `array` does not fit its input.
        """
        ...

    def close(self) -> None:
        """Free what the model holds; nothing can be bound or called from then on. Closing twice is harmless."""
        ...

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Open(Protocol):
    """Loads a model file; `threads`: inside an operator, None: one per usable core; an engine on a GPU ignores it.

    Raises:
        BackendError: the engine refuses the file.
    """

    def __call__(self, path: Path, *, threads: int | None = None) -> Session: ...


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built for.

    Attributes:
        max_batch: the largest batch that it takes; the smallest is 1.
        opt_batch: the batch that it is made fastest for.
        workspace_mb: memory that a layer may use while it runs, in MiB; None: as much as the device has.
        cache: where engines lie; None: edgekd/engines where the user's caches lie.
    """

    max_batch: int = 8
    opt_batch: int = 1
    workspace_mb: int | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """One engine in the cache; `seconds` is what building it took, now or, where `reused`, when it was built."""

    variant: str
    path: Path
    reused: bool
    seconds: float
    size_bytes: int
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


class Build(Protocol):
    """Builds one engine per variant from a bundle's graphs on this device, or takes it from the cache.

    Raises:
        BackendError: a variant that the engine or the device cannot run, or a cache that cannot be written.
    """

    def __call__(
        self,
        manifest: BundleManifest,
        variants: Sequence[str],
        options: BuildOptions,
        *,
        progress: Progress | None = None,
    ) -> list[BuiltEngine]: ...


@dataclass(frozen=True)
class EngineBuilder:
    """Of a backend that runs engines which it builds on the device, instead of the graphs themselves.

    Attributes:
        build: see Build.
        built: the engines that were built here from a bundle's graphs, by variant.
            Raises BackendError where they cannot be used after all.
        device: what decides, besides the graph and the options, which engine is built here: the GPU, for example.
            Raises BackendError where there is no such device.
    """

    build: Build
    built: Callable[[BundleManifest], dict[str, Path]]
    device: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Backend:
    """An inference engine.

    Attributes:
        name: the file's, on the command line, in bundle.json and in a measurement.
        title: for people.
        suffixes: of the model files that it opens; GRAPH is an ONNX graph.
        activations: for a machine as platform.machine() spells it, the activations of the graphs that it should be
            given there, what it is usually fastest on first; for None: on any machine.
        version: of the installed package; None where there is none. Imports nothing heavy.
        available: why it cannot be used here; None where it can. Imports nothing heavy.
        open: see Open.
        open_as_written: opens a graph so that each operator is computed as it is written, without fusing quantized
            ones: what the graph means, not what this engine is fast at. None where it cannot.
        engines: where it runs engines that it builds.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    activations: Callable[[str | None], tuple[Activations, ...]]
    version: Callable[[], str | None]
    available: Callable[[], str | None]
    open: Open
    open_as_written: Callable[[Path], Session] | None = None
    engines: EngineBuilder | None = None

    @property
    def opens_graphs(self) -> bool:
        return GRAPH in self.suffixes


def find(name: str) -> Backend:
    """The backend of that name, whether it can be used here or not.

    Raises:
        UnknownNameError: there is none.
    """
    found: Backend = plugins.load("backend", name)
    return found


def every() -> list[Backend]:
    """All backends, by name, whether they can be used here or not."""
    return list(plugins.load_all("backend").values())


def graph_backends() -> list[Backend]:
    """Those that open ONNX graphs and can be used here."""
    return [backend for backend in every() if backend.opens_graphs and backend.available() is None]


def builders() -> list[tuple[Backend, EngineBuilder]]:
    """Those that build engines and can be used here, each with its builder."""
    found = [(backend, backend.engines) for backend in every() if backend.engines is not None]
    return [(backend, builder) for backend, builder in found if backend.available() is None]


def reference() -> Backend:
    """The backend that can compute any ONNX graph as it is written.

    Raises:
        BackendError: it cannot be used here.
    """
    able = [backend for backend in every() if backend.open_as_written is not None]
    for backend in able:
        if backend.available() is None:
            return backend
    raise BackendError(
        "no engine here computes a graph as it is written",
        found="; ".join(f"{backend.title}: {backend.available()}" for backend in able) or None,
    )


def open_reference(path: Path, *, as_written: bool) -> Session:
    """Open a graph in the reference backend, as it is written or as that engine runs it best.

    Raises:
        BackendError: no such engine here, or it refuses the file.
    """
    backend = reference()
    assert backend.open_as_written is not None
    return backend.open_as_written(path) if as_written else backend.open(path)


def choose(path: Path, name: str | None = None) -> Backend:
    """The backend that opens `path`: the named one, or the first usable one that knows the suffix.

    Raises:
        UnknownNameError: no such backend.
        BackendError: none that opens this kind of file can be used here.
    """
    if name is not None:
        named = find(name)
        if (reason := named.available()) is not None:
            raise BackendError(f"the backend {name} cannot be used here", found=reason)
        return named
    reasons = []
    for backend in every():
        if path.suffix not in backend.suffixes:
            continue
        if (reason := backend.available()) is None:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    suffixes = sorted({suffix for backend in every() for suffix in backend.suffixes})
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
    return choose(path, backend).open(path, threads=threads)


def checked_input(array: Array, inputs: Sequence[TensorInfo]) -> Array:
    """`array` in the dtype of the model's one input, contiguous.

    Raises:
        BackendError: there are several inputs, or the array's shape does not fit.
    """
    if len(inputs) != 1:
        raise BackendError("this model takes more than one input", found=[info.name for info in inputs])
    (info,) = inputs
    fits = len(array.shape) == len(info.shape) and all(
        not isinstance(wanted, int) or wanted == found for wanted, found in zip(info.shape, array.shape, strict=True)
    )
    if not fits:
        shape = ", ".join(str(size) for size in info.shape)
        raise BackendError(f"the input {info.name!r} has another shape", found=array.shape, allowed=f"({shape})")
    return np.ascontiguousarray(array, dtype=info.dtype)
