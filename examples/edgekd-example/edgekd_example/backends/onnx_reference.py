"""ONNX's reference implementation: every operator in NumPy, as the specification defines it. Exact, but slow."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.runtime.backends import GRAPH, Activations, Array, Backend, Feed, Session, TensorInfo, checked_inputs


class ReferenceSession(Session):
    """One graph. The engine is imported when a model is opened, so that listing backends is cheap."""

    device = "cpu"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        if threads not in (None, 1):
            raise BackendError("the reference implementation is single-threaded", found=threads, allowed=1)
        onnx = import_module("onnx")
        self.engine = f"onnx reference {metadata.version('onnx')}"
        try:
            model = onnx.load(path)
            self._evaluator: Any = import_module("onnx.reference").ReferenceEvaluator(model)
        except Exception as error:  # the evaluator's operators may raise anything
            raise BackendError(f"the reference implementation cannot load {path}", found=str(error)) from None
        stored = {weight.name for weight in model.graph.initializer}
        self.inputs = tuple(_info(value) for value in model.graph.input if value.name not in stored)
        self.outputs = tuple(map(_info, model.graph.output))

    def bind(self, inputs: Feed) -> Callable[[], Array]:
        feed = checked_inputs(inputs, self.inputs)
        if (evaluator := self._evaluator) is None:
            raise BackendError("this session was closed", hint="open the model again")

        def call() -> Array:
            output: Array = evaluator.run(None, feed)[0]
            return output

        return call

    def close(self) -> None:
        self._evaluator = None


def _info(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = import_module("onnx.helper").tensor_dtype_to_np_dtype(tensor.elem_type)
    dimensions = enumerate(tensor.shape.dim)
    shape = tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or f"dim{axis}" for axis, size in dimensions
    )
    return TensorInfo(value.name, shape, str(dtype))


def _activations(machine: str | None) -> tuple[Activations, ...]:
    return ("float32",)


def _version() -> str | None:
    return metadata.version("onnx") if find_spec("onnx") else None


def _available() -> str | None:
    return None if find_spec("onnx") else "onnx is not installed (pip install onnx)"


BACKEND = Backend(
    title="ONNX reference",
    suffixes=(GRAPH,),
    activations=_activations,
    version=_version,
    available=_available,
    open=ReferenceSession,
)
