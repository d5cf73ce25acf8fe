"""Hard-swish, SiLU and hard-sigmoid from operators that ONNX Runtime computes on uint8 values.

ONNX Runtime has no integer kernels for hard-swish and hard-sigmoid, and computes a SiLU in float as there is no pair
between its sigmoid and its product. Each would be three to four passes over the values in float.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import NodeProto

from edgekd.export._pairs import Pair, PairedGraph

_STEPS = 255
# Where hard-swish is 0 and where it is the identity: x * clip(x + 3, 0, 6) / 6.
_BEND = 3.0
# As in quantization.quantizers: what fits into the int32 bias beside the products.
_BIAS_STEPS = 2**30


def integer_hard_swish(graph: PairedGraph) -> None:
    """Make every hard-swish on quantized values, x * clip(x + 3, 0, 6) / 6, a product of two values on uint8 grids."""
    for node in graph.nodes("HardSwish"):
        pair = graph.pair_of(node.input[0])
        if pair is not None and _only_feeds(node, pair, graph):
            gate = _clipped(node, pair, graph) or _added(node, pair, graph)
            graph.become(node, "Mul", [pair.result, gate])


def _clipped(node: NodeProto, pair: Pair, graph: PairedGraph) -> str | None:
    """The gate clip(x + 3, 0, 6) / 6 by clipping the steps of x; None where they may not change, or would be coarser.

    Below -3 a hard-swish is 0, so the grid of x begins there, at step 0. Its scale is 3 / k, for a whole number k. Then
    the steps of x, clipped to 2k and read with a sixth of the scale and zero point 0, are the gate, not rounded again.
    """
    if not pair.has_one_grid:
        return None
    scale, zero = graph.scale_and_zero(pair.quantize)
    bend = math.floor(_BEND * _STEPS / (_BEND + scale * (_STEPS - zero)))
    if 2 * bend > _STEPS or bend * scale < _BEND:
        return None
    name = node.output[0]
    graph.put_on(pair, graph.grid(f"{name}_input", _BEND / bend, bend))
    highest = graph.add_constant(f"{name}_highest", np.uint8(2 * bend))
    clipped = graph.insert(node, "Clip", [pair.steps, "", highest], f"{name}_clipped")
    return _read(clipped, _BEND / bend / (2 * _BEND), node, graph)


def _added(node: NodeProto, pair: Pair, graph: PairedGraph) -> str:
    """The gate by adding 3 to x, on its own grid: that of the sum ends at 0 and at 6."""
    name = node.output[0]
    three = [graph.add_constant(f"{name}_three", np.uint8(_STEPS)), *graph.grid(f"{name}_three", _BEND / _STEPS, 0)]
    bend = graph.insert(node, "DequantizeLinear", three, f"{name}_bend")
    total = graph.insert(node, "Add", [pair.result, bend], f"{name}_sum")
    grid = graph.grid(f"{name}_sum", 2 * _BEND / _STEPS, 0)
    return _read(graph.insert(node, "QuantizeLinear", [total, *grid], f"{name}_steps"), 1 / _STEPS, node, graph)


def _read(steps: str, scale: float, node: NodeProto, graph: PairedGraph) -> str:
    name = f"{node.output[0]}_gate"
    return graph.insert(node, "DequantizeLinear", [steps, *graph.grid(name, scale, 0)], name)


def integer_hard_sigmoid(graph: PairedGraph) -> None:
    """Let the convolution before a hard-sigmoid compute it: clip(x / 6 + 1/2, 0, 1) is what its output's grid does.

    The half is added to its bias, and the sixth is in the scale that the steps are read with.
    """
    for node in graph.nodes("HardSigmoid"):
        pair, after = graph.pair_of(node.input[0]), graph.pair_after(node.output[0])
        layer = None if pair is None else graph.maker(pair.source)
        if pair is None or after is None or layer is None or not _only_feeds(node, pair, graph):
            continue
        scale, zero = graph.scale_and_zero(after.quantize)
        if zero != 0 or not (pair.has_one_grid and after.has_one_grid):
            continue
        slope, middle = (_number(node, name, default) for name, default in (("alpha", 0.2), ("beta", 0.5)))
        if layer.op_type != "Conv" or not graph.is_private(pair.source) or not _raise(layer, middle / slope, graph):
            continue
        graph.put_on(pair, graph.grid(f"{pair.source}_raised", scale / slope, 0))
        graph.set_input(after.dequantize, 0, pair.steps)
        graph.remove(pair.dequantize, node, after.quantize)


def integer_silu(graph: PairedGraph) -> None:
    """Put a pair between the sigmoid and the product of every SiLU on quantized values: ONNX Runtime fuses both."""
    for node in graph.nodes("Sigmoid"):
        value, gate = node.input[0], node.output[0]
        if graph.pair_of(value) is None or not graph.is_private(gate):
            continue
        product = graph.users(gate)[0]
        if product.op_type == "Mul" and set(product.input) == {value, gate}:
            between = graph.insert_pair(product, gate, 1 / _STEPS, 0, f"{gate}_gate")
            graph.set_input(product, list(product.input).index(gate), between)


def _only_feeds(node: NodeProto, pair: Pair, graph: PairedGraph) -> bool:
    return graph.is_private(pair.steps) and graph.is_private(pair.result) and graph.users(pair.result) == [node]


def _number(node: NodeProto, name: str, default: float) -> float:
    found = next((held for held in node.attribute if held.name == name), None)
    return default if found is None else float(onnx.helper.get_attribute_value(found))


def _raise(layer: NodeProto, by: float, graph: PairedGraph) -> bool:
    """Add a number to a convolution's bias; False where that would not fit into the int32 that engines make of it."""
    pair, weight = graph.pair_of(layer.input[0]), graph.maker(layer.input[1])
    if pair is None or weight is None or weight.op_type != "DequantizeLinear":
        return False
    scales = graph.constant(weight.input[1])
    bias = graph.constant(layer.input[2]) if len(layer.input) > 2 else np.zeros_like(scales)
    if scales is None or bias is None:
        return False
    raised = (bias + by).astype(np.float32)
    step, _ = graph.scale_and_zero(pair.dequantize)
    if (np.abs(raised) > step * scales * _BIAS_STEPS).any():
        return False
    layer.input[2:] = [graph.add_constant(f"{layer.output[0]}_bias", raised)]
    return True
