"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.runtime.backends import (
    GRAPH,
    Activations,
    Array,
    Backend,
    Feed,
    Optimizer,
    Session,
    TensorInfo,
    checked_inputs,
)
from edgekd.runtime.cores import usable_cores

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "tensor(bool)": "bool",
    "tensor(string)": "str",
}
_ERRORS_ONLY = 3
# As platform.machine() reports it.
_X86 = ("x86_64", "AMD64")
# How a file begins that stands for one in Git's large file storage.
_LFS = b"version https://git-lfs.github.com/spec/"


class OrtSession(Session):
    """One ONNX Runtime session.

    Args:
        path: an .onnx file.
        threads: threads per operator; None: one per usable core.
        as_written: whether Q/DQ pairs are computed as they are written, with float operators between them, instead of
            with int8 kernels, which round differently.

    Raises:
        BackendError: ONNX Runtime cannot load the graph.
    """

    device = "cpu"

    def __init__(self, path: Path, *, threads: int | None = None, as_written: bool = False) -> None:
        ort = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self.engine = f"onnxruntime {metadata.version('onnxruntime')}{', Q/DQ as written' if as_written else ''}"
        if as_written:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._path = path
        self._session: Any = _session(path, options)
        self.inputs = tuple(map(_info, self._session.get_inputs()))
        self.outputs = tuple(map(_info, self._session.get_outputs()))

    def bind(self, inputs: Feed) -> Callable[[], Array]:
        feed = checked_inputs(inputs, self.inputs)
        wanted = [info.name for info in self.outputs]
        if self._session is None:
            raise BackendError("this session was closed", hint="open the model again")
        run = self._session.run

        def call() -> Array:
            try:
                output: Array = run(wanted, feed)[0]
            except Exception as error:  # ONNX Runtime's exceptions have no common base class
                raise BackendError(
                    f"ONNX Runtime cannot compute {self._path}",
                    found=_first_line(error),
                    hint="an operator refuses these values or shapes: check the inputs, then the graph at that node",
                ) from None
            return output

        return call

    def close(self) -> None:
        # ONNX Runtime has no close(): the memory is freed with the last bound function.
        self._session = None


def _session(path: Path, options: Any) -> Any:
    try:
        return import_module("onnxruntime").InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise BackendError(
            f"ONNX Runtime cannot load {path}",
            found=_first_line(error),
            hint=_next_step(path),
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _next_step(path: Path) -> str:
    with suppress(OSError), path.open("rb") as stream:  # a file that is not there has ONNX Runtime's message
        if stream.read(len(_LFS)) == _LFS:
            return "fetch the file itself: this is a pointer of Git LFS to it (git lfs pull)"
    return (
        "check that the ONNX file is complete, with its .data file beside it if it has one, and that it keeps to "
        "operators and types that this version has"
    )


def _info(argument: Any) -> TensorInfo:
    shape = tuple(
        size if isinstance(size, int) else str(size or f"dim{axis}") for axis, size in enumerate(argument.shape)
    )
    return TensorInfo(argument.name, shape, _DTYPES.get(argument.type, argument.type))


def _write_optimized(path: Path, out: Path) -> None:
    """See Optimizer. The file is for this processor: it has layouts and operators of ONNX Runtime's own."""
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.optimized_model_filepath = str(out)
    _session(path, options)


def _is_quantized(operator: str) -> bool:
    """E.g. QLinearConv, QGemm, MatMulIntegerToFloat; QuantizeLinear and DequantizeLinear only convert."""
    return operator.startswith(("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "NhwcMaxPool"))


def _converted(machine: str) -> Mapping[Activations, Activations]:
    """On x86 there are no kernels for fp16: the graph runs in fp32, with casts around each operator."""
    return {"float16": "float32"} if machine in _X86 else {}


def _version() -> str | None:
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return None


def _available() -> str | None:
    return None if find_spec("onnxruntime") else "onnxruntime is not installed (pip install onnxruntime)"


BACKEND = Backend(
    title="ONNX Runtime",
    suffixes=(GRAPH,),
    # Not symmetric int8: on no processor does ONNX Runtime fuse its Q/DQ pairs, only those with uint8 activations.
    activations=lambda machine: ("float32", "uint8", "float16"),
    converted=_converted,
    version=_version,
    available=_available,
    open=OrtSession,
    open_as_written=partial(OrtSession, as_written=True),
    optimizer=Optimizer(write=_write_optimized, is_quantized=_is_quantized),
    imports="onnxruntime",
)
