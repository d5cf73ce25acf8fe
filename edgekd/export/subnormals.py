"""Sets subnormal numbers in a graph's constants to 0: some CPUs compute with them many times slower (docs/bench.md).

Weight decay drives the weights of channels that are never active down to such values. What they add to any sum is below
the rounding of float32; that the answers stay the same is proven with the rest of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from edgekd.export._scopes import Scope, scopes
from edgekd.wording import counted

# float16 is left out: a CPU computes it in float32, where its subnormal numbers are normal, and a GPU at full speed.
_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE)
# Inputs that are scales of int8 steps: an engine divides by them.
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}
# Operators for which 0 is another case than a very small number, with the inputs that matter.
_NOT_ZERO = {"Div": (1,), "Reciprocal": (0,), "Log": (0,), "Pow": (0, 1)}


@dataclass(frozen=True)
class Flushed:
    """How many numbers were changed: weights and other constants to 0, scales to the smallest normal number."""

    weights: int = 0
    scales: int = 0

    @property
    def lines(self) -> list[str]:
        """For people; empty where nothing was changed."""
        parts = [(self.weights, "weight", "0"), (self.scales, "scale", "the smallest normal number")]
        return [f"{counted(count, f'subnormal {what}')} set to {to}" for count, what, to in parts if count]


def flush_subnormals(model: onnx.ModelProto) -> Flushed:
    """Change the constants of a model in place; numbers that it divides by are left as they are."""
    weights = scales = 0
    for scope in scopes(model.graph):
        for name, tensor in _constants(scope):
            values = numpy_helper.to_array(tensor)
            subnormal = _subnormal(values)
            if not (count := int(np.count_nonzero(subnormal))):
                continue
            uses = _uses(scope, name)
            if any(place in _NOT_ZERO.get(operator, ()) for operator, place in uses):
                continue
            is_scale = any(place in _SCALES.get(operator, ()) for operator, place in uses)
            new = np.where(subnormal, np.finfo(values.dtype).tiny if is_scale else 0.0, values).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
            weights, scales = weights + count * (not is_scale), scales + count * is_scale
    return Flushed(weights, scales)


def _subnormal(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    size = np.abs(values)
    found: npt.NDArray[np.bool_] = (size > 0) & (size < np.finfo(values.dtype).tiny)
    return found


def _constants(scope: Scope) -> Iterator[tuple[str, TensorProto]]:
    """The floating-point constants of one graph, by the name under which nodes read them."""
    named = [(tensor.name, tensor) for tensor in scope.graph.initializer]
    for node in scope.graph.node:
        if node.op_type == "Constant":
            named += [(node.output[0], held.t) for held in node.attribute if held.name == "value"]
    return ((name, tensor) for name, tensor in named if tensor.data_type in _TYPES)


def _uses(scope: Scope, name: str) -> set[tuple[str, int]]:
    """The operators that read a name, with its place among their inputs, in this graph and in those inside it."""
    inner = [*scopes(scope.graph)]
    return {(node.op_type, place) for each in inner for node, place in each.consumers.get(name, ())}
