"""Backends for inference engines, one file per backend: each exports `BACKEND`, a Backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.errors import BackendError, PluginError, PluginWarning, whole_number
from edgekd.runtime.bundle import BundleManifest

Array = npt.NDArray[Any]
# The only input of a model, or all of its inputs by name.
Feed: TypeAlias = "Array | Mapping[str, Array]"
Progress = Callable[[int, int, str], None]
GRAPH = ".onnx"
# The type of the activations between a graph's layers; uint8 is int8 for engines that fuse asymmetric pairs only.
Activations = Literal["float32", "float16", "int8", "uint8"]
_Self = TypeVar("_Self", bound="Session")


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. A dimension is a number, or a name if it is dynamic; `dtype` is NumPy's name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Session(Protocol):
    """A loaded model; `with` closes it.

    Attributes:
        engine: the engine's name and version, e.g. "onnxruntime 1.31.1".
        device: what it runs on, e.g. "cpu".
        inputs, outputs: in the model's order.
    """

    engine: str
    device: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def bind(self, inputs: Feed) -> Callable[[], Array]:
        """A function without arguments that runs the model on `inputs` and returns its first output.

        All outputs are computed and fetched, as an app would.

        Args:
            inputs: an array for a model with one input, else arrays by the inputs' names; they must not be changed
                while the function is used.

        Raises:
            BackendError: an input is missing or one too many, or an array does not fit its input.
        """
        ...

    def close(self) -> None:
        """Free the model's resources; it cannot be used afterwards. Closing twice is allowed."""
        ...

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Open(Protocol):
    """Loads a model file. `threads` is per operator, None: one per usable core; GPU engines ignore it.

    Raises:
        BackendError: the engine refuses the file.
    """

    def __call__(self, path: Path, *, threads: int | None = None) -> Session: ...


@dataclass(frozen=True)
class BuildOptions:
    """Options for building an engine.

    Attributes:
        max_batch: the largest batch size that it accepts; the smallest is 1.
        opt_batch: the batch size that it is optimised for.
        workspace_mb: memory that a layer may use, in MiB; None: no limit.
        cache: the engine cache's folder; None: edgekd/engines in the user's cache folder.
    """

    max_batch: int = 8
    opt_batch: int = 1
    workspace_mb: int | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """One engine in the cache; `seconds` is the time that building it took, for a reused engine at an earlier time."""

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


@dataclass(frozen=True, kw_only=True)
class EngineBuilder:
    """For a backend that runs engines built on the device, instead of graphs.

    Attributes:
        build: see Build.
        built: the engines that were built here from a bundle's graphs, by variant.
            Raises BackendError where they cannot be used.
        device: identifies the hardware that engines are built for, e.g. the GPU; part of the key of built engines.
            Raises BackendError where there is no such device.
    """

    build: Build
    built: Callable[[BundleManifest], dict[str, Path]]
    device: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """For a backend whose own optimized graph can be looked at, to count what it computes in integers.

    Attributes:
        write: writes the graph of the first file, as the engine computes it, as ONNX to the second.
            Raises BackendError where the engine refuses the graph.
        is_quantized: whether an operator of that type, in the optimized graph, computes on quantized values.
    """

    write: Callable[[Path, Path], None]
    is_quantized: Callable[[str], bool]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """An inference engine.

    Attributes:
        name: the file's name, filled in by edgekd.plugins; used on the command line, in bundle.json and in
            measurements.
        title: for people.
        suffixes: of the model files that it opens; GRAPH for ONNX graphs.
        activations: from a machine (as platform.machine() reports it) to the activation types of the graphs that it
            should run there, usually the fastest first; from None to those for any machine.
        converted: from a machine to the types that it has no kernels for there, each with the type that it computes
            them in: such a graph is not preferred to one of that type, whatever was measured.
        version: of the installed package; None if it is not installed. Imports nothing heavy.
        available: the reason why it cannot be used here; None if nothing speaks against it. Imports nothing heavy.
        open: see Open.
        open_as_written: opens a graph so that each operator is computed as it is written, without fusing quantized
            operators; None if the engine cannot.
        optimizer: shows what the engine makes of a graph; None if it cannot be looked at.
        engines: builds and finds engines; None for a backend that runs graphs.
        imports: the module that `open` imports, for edgekd.runtime.importing to try; None: nothing is tried.
    """

    name: str = field(init=False, default="")
    title: str
    suffixes: tuple[str, ...]
    activations: Callable[[str | None], tuple[Activations, ...]]
    version: Callable[[], str | None]
    available: Callable[[], str | None]
    open: Open
    converted: Callable[[str], Mapping[Activations, Activations]] = lambda _: {}
    open_as_written: Callable[[Path], Session] | None = None
    optimizer: Optimizer | None = None
    engines: EngineBuilder | None = None
    imports: str | None = None

    @property
    def opens_graphs(self) -> bool:
        return GRAPH in self.suffixes


def find(name: str) -> Backend:
    """The backend of that name, whether or not it is available here.

    Raises:
        UnknownNameError: there is no such backend.
    """
    backend: Backend = plugins.load("backend", name)
    return backend


def all_backends() -> list[Backend]:
    """All backends, sorted by name, whether or not they are available here.

    One from outside that cannot even say whether it is, or in which version, is left out with a PluginWarning.
    """
    found = []
    for backend in plugins.load_all("backend").values():
        try:
            backend.available()
            backend.version()
        except Exception as error:  # code from outside may raise anything
            failed = error if isinstance(error, PluginError) else plugins.failure(error)
            if failed is None:
                raise
            warnings.warn(PluginWarning(f"left out: {failed}"), stacklevel=2)
        else:
            found.append(backend)
    return found


def graph_backends() -> list[Backend]:
    """The backends that open ONNX graphs and are available here."""
    return [backend for backend in all_backends() if backend.opens_graphs and backend.available() is None]


def builders() -> list[tuple[Backend, EngineBuilder]]:
    """The backends that build engines and are available here, each with its builder."""
    found = [(backend, backend.engines) for backend in all_backends() if backend.engines is not None]
    return [(backend, builder) for backend, builder in found if backend.available() is None]


def reference() -> Backend:
    """The first available backend that computes ONNX graphs as they are written.

    Raises:
        BackendError: none is available here.
    """
    candidates = [backend for backend in all_backends() if backend.open_as_written is not None]
    for backend in candidates:
        if backend.available() is None:
            return backend
    raise BackendError(
        "no available engine computes a graph as it is written",
        found="; ".join(f"{backend.title}: {backend.available()}" for backend in candidates) or None,
    )


def open_reference(path: Path, *, as_written: bool) -> Session:
    """Open a graph in the reference backend.

    Args:
        path: the graph.
        as_written: whether each operator is computed as it is written; else the engine may fuse operators.

    Raises:
        BackendError: no such backend is available, or it refuses the file.
    """
    backend = reference()
    assert backend.open_as_written is not None
    return backend.open_as_written(path) if as_written else backend.open(path)


def choose(path: Path, name: str | None = None) -> Backend:
    """The backend for a model file: the named one, or the first available one that opens files of this suffix.

    Args:
        path: the model file; only its suffix is looked at, in any case.
        name: a backend's name, whose suffixes are then not compared.

    Raises:
        UnknownNameError: no such backend.
        BackendError: no backend that opens this file is available here.
    """
    if name is not None:
        named = find(name)
        if (reason := named.available()) is not None:
            raise BackendError(f"the backend {name} cannot be used here", found=reason)
        return named
    reasons = []
    for backend in all_backends():
        if path.suffix.lower() not in backend.suffixes:
            continue
        if (reason := backend.available()) is None:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    suffixes = sorted({suffix for backend in all_backends() for suffix in backend.suffixes})
    raise BackendError(
        f"no available engine opens {path.name}",
        found="; ".join(reasons) or None,
        allowed=f"files {', '.join(suffixes)}",
    )


def open_session(path: Path, *, backend: str | None = None, threads: int | None = None) -> Session:
    """Load a model file into an engine.

    Args:
        path: the model file.
        backend: by name; None: see choose().
        threads: per operator; None: one per usable core.

    Raises:
        UnknownNameError: no such backend.
        UsageError: `threads` is not a whole number of at least 1.
        BackendError: the file does not exist, no backend is available, or the engine refuses the file.
    """
    if threads is not None:
        threads = whole_number(threads, "threads")
    if not path.is_file():
        raise BackendError(f"{path} does not exist", hint="pass an .onnx file, an engine or a bundle's folder")
    return choose(path, backend).open(path, threads=threads)


def checked_inputs(feed: Feed, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    """Arrays by the inputs' names, each contiguous and in its input's dtype.

    Args:
        feed: the only input, or all inputs by name.
        inputs: those of the model; a dimension that is a name fits any size.

    Raises:
        BackendError: an input is missing or one too many, or an array's shape does not fit.
    """
    if not isinstance(feed, Mapping):
        array = checked_input(feed, inputs)
        return {inputs[0].name: array}
    names = [info.name for info in inputs]
    if feed.keys() != set(names):
        raise BackendError("these are not the model's inputs", found=", ".join(feed), allowed=", ".join(names))
    return {info.name: _fitting(feed[info.name], info) for info in inputs}


def checked_input(array: Array, inputs: Sequence[TensorInfo]) -> Array:
    """`array`, contiguous and in the dtype of the model's only input.

    Args:
        array: a batch of inputs.
        inputs: those of the model; a dimension that is a name fits any size.

    Raises:
        BackendError: the model has several inputs, or the array's shape does not fit.
    """
    if len(inputs) != 1:
        raise BackendError("this model does not have exactly one input", found=[info.name for info in inputs])
    return _fitting(array, inputs[0])


def fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape has a model's fixed dimensions; dynamic ones take any size.

    Any shape fits where the model has no dimensions: engines report a graph so that tells none, too.
    """
    if not wanted:
        return True
    return len(shape) == len(wanted) and all(
        not isinstance(size, int) or size == found for size, found in zip(wanted, shape, strict=True)
    )


def _fitting(array: Array, info: TensorInfo) -> Array:
    if not fits(array.shape, info.shape):
        shape = ", ".join(str(size) for size in info.shape)
        raise BackendError(f"the input {info.name!r} has another shape", found=array.shape, allowed=f"({shape})")
    try:
        np.dtype(info.dtype)
    except TypeError:
        raise BackendError(f"the input {info.name!r} is no tensor", found=info.dtype, allowed="an array") from None
    # Not ascontiguousarray, which gives a scalar a dimension.
    return np.asarray(array, dtype=info.dtype, order="C")
