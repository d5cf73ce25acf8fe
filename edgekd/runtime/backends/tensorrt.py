"""TensorRT on the first NVIDIA GPU: runs engines that were built on this device, from 8.6 to 11.

Only names that every one of these versions has are used; a test holds that. `_tensorrt_build.py` builds them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.runtime import engine_cache
from edgekd.runtime.backends import Array, TensorInfo, _cuda, checked_input
from edgekd.runtime.bundle import BundleManifest

SUFFIXES = (".engine", ".plan")
# Through the engines that were built from them on this device: see `built`.
VARIANTS = ("int8", "fp16", "fp32")

# By name, for the numbers behind them moved between versions. BF16, FP8, … have no NumPy type.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def why_not() -> str | None:
    spec = find_spec("tensorrt")
    # No origin: a folder that happens to have this name, not a package.
    if spec is None or spec.origin is None:
        return (
            "TensorRT's Python package is not installed; on a Jetson it is JetPack's python3-libnvinfer (a venv needs "
            "--system-site-packages), on a workstation pip install 'edgekd[tensorrt]'"
        )
    # TensorRT itself ends in a segmentation fault where there is no GPU, so it is not asked.
    return _cuda.why_not()


def built(manifest: BundleManifest) -> dict[str, Path]:
    """The engines in the cache that this TensorRT built on this kind of GPU from the bundle's graphs, by variant.

    Where there are several of a variant, it is the one that was asked for last.

    Raises:
        BackendError: no GPU, or engines are there but TensorRT cannot be imported.
    """
    wanted = {name: (manifest.graph_sha256(name), record.precision) for name, record in manifest.variants.items()}
    graphs = {graph for graph, _ in wanted.values()}
    entries = [entry for entry in engine_cache.find(device=_cuda.device()) if entry.identity.graph in graphs]
    if not entries:
        return {}
    version = imported().__version__
    found: dict[tuple[str, str], Path] = {}
    for path, identity in ((entry.path, entry.identity) for entry in entries):
        if identity.tensorrt == version:
            found.setdefault((identity.graph, str(identity.options.get("precision"))), path)
    return {name: found[key] for name, key in wanted.items() if key in found}


class TrtSession:
    """One engine with one execution context; calls from several threads take turns.

    Args:
        path: a serialized engine; where engine.json lies beside it, it is held against that first.
        graph: sha256 of the ONNX file that it should have been built from, where that is known.

    Raises:
        BackendError: no GPU, no TensorRT that can be imported, or not an engine for both.
    """

    device = "cuda:0"

    def __init__(self, path: Path, *, graph: str | None = None) -> None:
        self._driver = _cuda.Driver()
        trt = imported()
        self.engine = f"tensorrt {trt.__version__}"
        self._log = new_log(trt)
        plan = path.read_bytes()
        engine_cache.check(path, plan, device=_cuda.device(), tensorrt=trt.__version__, graph=graph)
        self._engine = _deserialised(trt, self._log, path, plan)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"TensorRT cannot make room to run {path}", found=self._log.error)
        self._stream = _cuda.Stream(self._driver)
        self._lock = threading.Lock()
        self.inputs = _tensors(self._engine, trt.TensorIOMode.INPUT)
        self.outputs = _tensors(self._engine, trt.TensorIOMode.OUTPUT)

    def bind(self, array: Array) -> Callable[[], Array]:
        """A call that copies `array`, as it is now, to the GPU, runs the engine and copies the first output back.

        Raises:
            BackendError: more than one input, a shape that the engine was not built for, or no memory left.
        """
        if len(self.inputs) != 1:
            raise BackendError("this model takes more than one input", found=[info.name for info in self.inputs])
        fed = checked_input(array, self.inputs[0])
        driver, context = self._driver, self._context
        with self._lock:
            driver.activate()
            _set_shape(self._engine, context, self.inputs[0].name, fed.shape)
            source = _cuda.Buffer(driver, fed.shape, self.inputs[0].dtype)
            results = [_cuda.Buffer(driver, _output_shape(context, info.name), info.dtype) for info in self.outputs]
        source.array[...] = fed

        def call() -> Array:
            with self._lock:
                return self._run(source, results)

        return call

    def _run(self, source: _cuda.Buffer, results: Sequence[_cuda.Buffer]) -> Array:
        # Everything anew each time: another bound call may have used the context since, in another thread.
        self._driver.activate()
        context = self._context
        _set_shape(self._engine, context, self.inputs[0].name, source.array.shape)
        for info, buffer in zip((*self.inputs, *self.outputs), (source, *results), strict=True):
            context.set_tensor_address(info.name, buffer.address)
        source.upload(self._stream)
        if not context.execute_async_v3(self._stream.handle):
            raise BackendError(f"TensorRT cannot run this engine: {self._log.error}")
        results[0].download(self._stream)
        self._stream.synchronize()
        return results[0].array.copy()


def open(path: Path, *, threads: int | None = None) -> TrtSession:
    """`threads` changes nothing: the GPU does the work."""
    if path.suffix not in SUFFIXES:
        raise BackendError(
            f"TensorRT runs engines, not {path.name}",
            allowed=f"files {', '.join(SUFFIXES)}",
            hint="build one on this device: edgekd build BUNDLE, or trtexec --onnx=… --saveEngine=…",
        )
    return TrtSession(path)


def imported() -> Any:
    """TensorRT's module, to be asked for only after CUDA: it crashes where there is no GPU.

    Raises:
        BackendError: it or one of its libraries cannot be loaded.
    """
    try:
        return import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise BackendError(
            "TensorRT's Python package cannot be imported",
            found=f"{type(error).__name__}: {error}",
            hint="its libraries must be of the same version; in a container on a Jetson, of the host's L4T release",
        ) from None


def new_log(trt: Any) -> Any:
    """A logger that keeps the last error in `error` and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.error = "it gave no reason"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.error = message[:300]

    return Log()


def _deserialised(trt: Any, log: Any, path: Path, plan: bytes) -> Any:
    trt.init_libnvinfer_plugins(log, "")
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan) if plan else None
    if engine is None:
        raise BackendError(
            f"{path} was built by another TensorRT version or for another device, or is not a whole engine",
            found=log.error if plan else "an empty file",
            allowed=f"an engine that TensorRT {trt.__version__} built on this device",
            hint="build it again on this device",
        )
    return engine


def _tensors(engine: Any, mode: Any) -> tuple[TensorInfo, ...]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(_info(engine, name) for name in names if engine.get_tensor_mode(name) == mode)


def _info(engine: Any, name: str) -> TensorInfo:
    layout = engine.get_tensor_format(name).name
    if layout != "LINEAR":
        raise BackendError(f"the tensor {name!r} has a layout that NumPy lacks", found=layout, allowed="LINEAR")
    sizes = enumerate(engine.get_tensor_shape(name))
    shape = tuple(f"dim{axis}" if size < 0 else int(size) for axis, size in sizes)
    return TensorInfo(name, shape, _numpy_dtype(name, engine.get_tensor_dtype(name).name))


def _numpy_dtype(tensor: str, dtype: str) -> str:
    if dtype not in _DTYPES:
        raise BackendError(f"the tensor {tensor!r} has a type that NumPy lacks", found=dtype, allowed=list(_DTYPES))
    return _DTYPES[dtype]


def _set_shape(engine: Any, context: Any, name: str, shape: tuple[int, ...]) -> None:
    if not context.set_input_shape(name, shape):
        least, _, most = (tuple(size) for size in engine.get_tensor_profile_shape(name, 0))
        raise BackendError(
            f"the engine was not built for {name!r} of this shape",
            found=shape,
            allowed=f"{least} to {most}",
            hint="build it again with a range that holds this shape",
        )


def _output_shape(context: Any, name: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in context.get_tensor_shape(name))
    if any(size < 0 for size in shape):
        raise BackendError(f"the output {name!r} has a shape that depends on the input's values", found=shape)
    return shape
