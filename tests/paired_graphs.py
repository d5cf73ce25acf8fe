"""Small graphs with Q/DQ pairs, and ONNX Runtime's answers for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgekd.export._pairs import PairedGraph
from edgekd.export.qdq import with_unsigned_activations


def model_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    *,
    shape: Sequence[int | str],
    rank: int | None = None,
) -> onnx.ModelProto:
    """From x of a shape to y; `rank` of y, where it differs."""
    out = [f"d{axis}" for axis in range(len(shape) if rank is None else rank)]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def pair(source: str, result: str, grid: str) -> list[onnx.NodeProto]:
    """On the grid of the constants `grid`_s and `grid`_z."""
    scale, zero = f"{grid}_s", f"{grid}_z"
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [f"{result}_q"], name=f"q_{result}"),
        helper.make_node("DequantizeLinear", [f"{result}_q", scale, zero], [result], name=f"dq_{result}"),
    ]


def grids(**scales: float) -> dict[str, Any]:
    """The constants of symmetric int8 grids."""
    return {f"{name}_s": np.float32(scale) for name, scale in scales.items()} | {
        f"{name}_z": np.int8(0) for name in scales
    }


def applied(step: Callable[[PairedGraph], None], model: onnx.ModelProto) -> onnx.ModelProto:
    """A step on a graph with uint8 activations, checked."""
    own = PairedGraph(with_unsigned_activations(model))
    step(own)
    found = own.finish()
    onnx.checker.check_model(found, full_check=True)
    return found


def run(model: onnx.ModelProto, x: np.ndarray, *, as_written: bool = False) -> np.ndarray:
    """With ONNX Runtime's int8 kernels, or each operator as it is written."""
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


def fused(model: onnx.ModelProto, folder: Any) -> Counter[str]:
    """The operators of ONNX Runtime's optimized graph, but those that only move values."""
    options, file = onnxruntime.SessionOptions(), folder / "optimized.onnx"
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return Counter(node.op_type for node in onnx.load(file).graph.node if node.op_type not in ("Transpose", "Reshape"))
