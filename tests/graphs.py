"""ONNX graphs made by hand, and the rules of TensorRT's parser that they break."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.export import legality

FLOAT = TensorProto.FLOAT
ZERO, SCALE = np.zeros((), np.int8), np.float32(0.1)


def model(nodes, *, opset=17, constants=None, shape=("batch", 16, 8, 8), dtype=FLOAT, functions=()) -> onnx.ModelProto:
    """A model from `x` to the last node's output."""
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def quantized(
    operator="Conv", weight=(32, 16, 3, 3), *, axis=0, zero=None, x_scale=SCALE, x_zero=ZERO, opset=17, **more
):
    """x -> Q -> DQ -> one layer with an int8 weight behind a DQ, one scale per output channel."""
    scales = np.full(weight[axis], 0.1, np.float32)
    constants = {
        "w8": np.ones(weight, np.int8),
        "ws": scales,
        "wz": np.zeros(scales.shape, np.int8) if zero is None else zero,
        "xs": x_scale,
        **({} if x_zero is None else {"xz": x_zero}),
    }
    pair = ["xs", "xz"][: 1 if x_zero is None else 2]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *pair], ["x8"], "q"),
        helper.make_node("DequantizeLinear", ["x8", *pair], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wd"], "dqw", axis=axis),
        helper.make_node(operator, ["xd", "wd"], ["y"], "layer", **more),
    ]
    return model(nodes, constants=constants, opset=opset, shape=("batch", *[16, 8, 8][: len(weight) - 1]))


def rules(graph, version="10.3", level=None):
    return {found.rule for found in legality.check(graph, version).findings if level in (None, found.level)}
