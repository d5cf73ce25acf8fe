"""TensorRT on the first NVIDIA GPU: runs engines that were built on this device, from 8.6 to 11.

Only names that all of these versions have are used, which a test checks. `_tensorrt_build.py` builds one engine,
`_tensorrt_engines.py` those of a bundle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.runtime import engine_cache
from edgekd.runtime.backends import (
    Array,
    Backend,
    EngineBuilder,
    Feed,
    Session,
    TensorInfo,
    _cuda,
    checked_inputs,
)
from edgekd.runtime.backends._tensorrt_engines import NAME, build, built, device, import_tensorrt, new_log

_SUFFIXES = (".engine", ".plan")

# By name, because the numbers differ between versions. BF16, FP8, … have no NumPy type.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class TrtSession(Session):
    """One engine with one execution context; calls from several threads are serialised.

    Args:
        path: a serialized engine; if there is an engine.json beside it, the engine is compared with that first.
        graph: SHA-256 of the ONNX file that it should have been built from; None: not known.

    Raises:
        BackendError: no GPU, TensorRT cannot be imported, or the engine is for another GPU or TensorRT version.
    """

    def __init__(self, path: Path, *, graph: str | None = None) -> None:
        self._driver = _cuda.Driver()
        trt = import_tensorrt()
        self.engine = f"{NAME} {trt.__version__}"
        self._log = new_log(trt)
        plan = path.read_bytes()
        gpu = _cuda.device()
        self.device = f"cuda:0, {gpu.name}"
        engine_cache.check(path, plan, device=gpu, engine=NAME, version=trt.__version__, graph=graph)
        self._engine: Any = _deserialised(trt, self._log, path, plan)
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"TensorRT cannot allocate memory to run {path}", found=self._log.error)
        self._stream = _cuda.Stream(self._driver)
        self._lock = threading.Lock()
        self.inputs = _tensors(self._engine, trt.TensorIOMode.INPUT)
        self.outputs = _tensors(self._engine, trt.TensorIOMode.OUTPUT)

    def bind(self, inputs: Feed) -> Callable[[], Array]:
        """A function that runs the engine on the content that `inputs` have now and returns the first output.

        Raises:
            BackendError: other inputs, a shape that the engine was not built for, or out of memory.
        """
        values = checked_inputs(inputs, self.inputs)
        driver, context = self._driver, self._context
        with self._lock:
            self._require_open()
            driver.activate()
            for name, array in values.items():
                _set_shape(self._engine, context, name, array.shape)
            sources = [_cuda.Buffer(driver, values[info.name].shape, info.dtype) for info in self.inputs]
            results = [_cuda.Buffer(driver, _output_shape(context, info.name), info.dtype) for info in self.outputs]
        for source, array in zip(sources, values.values(), strict=True):
            source.array[...] = array

        def call() -> Array:
            with self._lock:
                return self._run(sources, results)

        return call

    def _run(self, sources: Sequence[_cuda.Buffer], results: Sequence[_cuda.Buffer]) -> Array:
        # Everything is set again, because another bound function may have used the context meanwhile.
        self._require_open()
        self._driver.activate()
        context = self._context
        for info, source in zip(self.inputs, sources, strict=True):
            _set_shape(self._engine, context, info.name, source.array.shape)
        for info, buffer in zip((*self.inputs, *self.outputs), (*sources, *results), strict=True):
            context.set_tensor_address(info.name, buffer.address)
        for source in sources:
            source.upload(self._stream)
        if not context.execute_async_v3(self._stream.handle):
            raise BackendError(f"TensorRT cannot run this engine: {self._log.error}")
        for result in results:
            result.download(self._stream)
        self._stream.synchronize()
        return results[0].array.copy()

    def close(self) -> None:
        with self._lock:
            # The context must be freed before its engine.
            self._context = None
            self._engine = None

    def _require_open(self) -> None:
        if self._engine is None:
            raise BackendError("this session was closed", hint="open the engine again")


def _open(path: Path, *, threads: int | None = None) -> TrtSession:
    """Open an engine; `threads` has no effect on a GPU."""
    if path.suffix.lower() not in _SUFFIXES:
        raise BackendError(
            f"TensorRT runs engines, not {path.name}",
            allowed=f"files {', '.join(_SUFFIXES)}",
            hint="build one on this device: edgekd build BUNDLE, or trtexec --onnx=… --saveEngine=…",
        )
    return TrtSession(path)


def _deserialised(trt: Any, log: Any, path: Path, plan: bytes) -> Any:
    trt.init_libnvinfer_plugins(log, "")
    try:
        runtime = trt.Runtime(log)
    except TypeError:  # the bindings' word for a runtime that could not be made
        raise BackendError(f"TensorRT {trt.__version__} cannot start its runtime", found=log.error) from None
    engine = runtime.deserialize_cuda_engine(plan) if plan else None
    if engine is None:
        raise BackendError(
            f"{path} was built by another TensorRT version or for another device, or is not a whole engine",
            found=log.error if plan else "an empty file",
            allowed=f"an engine built by TensorRT {trt.__version__} on this device",
            hint="build it again on this device",
        )
    return engine


def _tensors(engine: Any, mode: Any) -> tuple[TensorInfo, ...]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(_info(engine, name) for name in names if engine.get_tensor_mode(name) == mode)


def _info(engine: Any, name: str) -> TensorInfo:
    layout = engine.get_tensor_format(name).name
    if layout != "LINEAR":
        raise BackendError(f"the tensor {name!r} has an unsupported layout", found=layout, allowed="LINEAR")
    sizes = enumerate(engine.get_tensor_shape(name))
    shape = tuple(f"dim{axis}" if size < 0 else int(size) for axis, size in sizes)
    return TensorInfo(name, shape, _numpy_dtype(name, engine.get_tensor_dtype(name).name))


def _numpy_dtype(tensor: str, dtype: str) -> str:
    if dtype not in _DTYPES:
        raise BackendError(f"the tensor {tensor!r} has an unsupported type", found=dtype, allowed=list(_DTYPES))
    return _DTYPES[dtype]


def _set_shape(engine: Any, context: Any, name: str, shape: tuple[int, ...]) -> None:
    if not context.set_input_shape(name, shape):
        least, _, most = (tuple(size) for size in engine.get_tensor_profile_shape(name, 0))
        raise BackendError(
            f"the engine was not built for {name!r} of this shape",
            found=shape,
            allowed=f"{least} to {most}",
            hint="build it again for a range that includes this shape",
        )


def _output_shape(context: Any, name: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in context.get_tensor_shape(name))
    if any(size < 0 for size in shape):
        raise BackendError(f"the output {name!r} has a shape that depends on the input's values", found=shape)
    return shape


def _available() -> str | None:
    spec = find_spec("tensorrt")
    # Without an origin it is a folder of this name, not a package.
    if spec is None or spec.origin is None:
        return (
            "TensorRT's Python package is not installed; on a Jetson it is JetPack's python3-libnvinfer (a venv needs "
            "--system-site-packages), on a workstation pip install 'edgekd[tensorrt]'"
        )
    # TensorRT itself crashes without a GPU, so only CUDA is checked.
    return _cuda.unavailable_reason()


def _version() -> str | None:
    try:
        return metadata.version("tensorrt")
    except metadata.PackageNotFoundError:
        return None


BACKEND = Backend(
    title="TensorRT",
    suffixes=_SUFFIXES,
    # Through engines that are built from these graphs on the device.
    activations=lambda machine: ("int8", "float16", "float32"),
    version=_version,
    available=_available,
    open=_open,
    engines=EngineBuilder(build=build, built=built, device=device),
    imports="tensorrt",
)
