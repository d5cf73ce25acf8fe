"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.runtime.backends import Array, TensorInfo, checked_input

SUFFIXES = (".onnx",)
# On x86 symmetric int8 is 1 to 4 times slower than fp32 in ONNX Runtime; int8-x64 is made for it.
_INT8 = "int8-x64" if platform.machine() in ("x86_64", "AMD64") else "int8"
VARIANTS = ("fp32", _INT8, "fp16")

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3


def why_not() -> str | None:
    return None if find_spec("onnxruntime") else "onnxruntime is not installed (pip install onnxruntime)"


class OrtSession:
    """One ONNX Runtime session.

    Args:
        path: an .onnx file.
        threads: threads inside an operator; None: one a usable core.
        as_written: compute Q/DQ pairs as the graph says, in float between them, without int8 kernels that round
            otherwise: what the graph means, for another engine, rather than what ONNX Runtime is fast at.
    """

    device = "cpu"

    def __init__(self, path: Path, *, threads: int | None = None, as_written: bool = False) -> None:
        ort = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self.engine = f"onnxruntime {metadata.version('onnxruntime')}{', Q/DQ as written' if as_written else ''}"
        if as_written:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise BackendError(
                f"ONNX Runtime cannot load {path}",
                found=str(error).splitlines()[0][:300],
                hint="is it a whole ONNX file, with its .data file beside it if it has one?",
            ) from None
        self.inputs = tuple(map(_info, self._session.get_inputs()))
        self.outputs = tuple(map(_info, self._session.get_outputs()))

    def bind(self, array: Array) -> Callable[[], Array]:
        if len(self.inputs) != 1:
            raise BackendError("this model takes more than one input", found=[info.name for info in self.inputs])
        feed = {self.inputs[0].name: checked_input(array, self.inputs[0])}
        wanted = [self.outputs[0].name]
        run = self._session.run

        def call() -> Array:
            output: Array = run(wanted, feed)[0]
            return output

        return call


def open(path: Path, *, threads: int | None = None) -> OrtSession:
    return OrtSession(path, threads=threads)


def _info(argument: Any) -> TensorInfo:
    shape = tuple(
        size if isinstance(size, int) else str(size or f"dim{axis}") for axis, size in enumerate(argument.shape)
    )
    return TensorInfo(argument.name, shape, _DTYPES.get(argument.type, argument.type))
