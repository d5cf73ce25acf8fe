"""Proves from a graph how low a value can be."""

from __future__ import annotations

import math

from onnx import NodeProto

from edgekd.export._pairs import PairedGraph

# The lowest outputs of operators, for any input. x * relu6(x + 3) / 6 is lowest at -1.5, x * sigmoid(x) at -1.2785.
_HARD_SWISH, _SILU = -0.375, -0.27847
_LOWEST = {
    **dict.fromkeys(("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs"), 0.0),
    "HardSwish": _HARD_SWISH,
}
_HIGHEST_IS_ONE = ("Sigmoid", "HardSigmoid", "Softmax")
# Their outputs lie within the range of their first input, other inputs are numbers such as axes.
_WITHIN = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Identity", "Reshape"}
) | {"Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "QuantizeLinear", "DequantizeLinear"}


def lowest_of(name: str, graph: PairedGraph) -> float:
    """What a value is provably never below; minus infinity where nothing is known."""
    values = graph.constant(name)
    if values is not None:
        return float(values.min()) if values.size else 0.0
    node = graph.maker(name)
    if node is None:
        return -math.inf
    if node.op_type in _LOWEST:
        return _LOWEST[node.op_type]
    if node.op_type == "Clip":
        lowest = graph.constant(node.input[1]) if len(node.input) > 1 else None
        return -math.inf if lowest is None else float(lowest)
    if node.op_type in _WITHIN:
        return _of_padded(node, lowest_of(node.input[0], graph))
    if node.op_type == "Pad":
        return min(lowest_of(node.input[0], graph), _padding(node, graph))
    if node.op_type in ("Concat", "Max", "Add"):
        every = [lowest_of(each, graph) for each in node.input]
        return sum(every) if node.op_type == "Add" else min(every)
    return _of_product(node, graph) if node.op_type == "Mul" else -math.inf


def _padding(node: NodeProto, graph: PairedGraph) -> float:
    """The value that a Pad adds; infinity where it repeats values of its input."""
    mode = next((held.s for held in node.attribute if held.name == "mode"), b"constant")
    if mode != b"constant":
        return math.inf
    return lowest_of(node.input[2], graph) if len(node.input) > 2 and node.input[2] else 0.0


def _of_padded(node: NodeProto, lowest: float) -> float:
    # An average may count zeros around the image.
    return min(lowest, 0.0) if node.op_type == "AveragePool" else lowest


def _of_product(node: NodeProto, graph: PairedGraph) -> float:
    if _is_silu(node, graph):
        return _SILU
    lowest = [lowest_of(each, graph) for each in node.input]
    if min(lowest) >= 0:
        return 0.0
    # A gate from 0 to 1 moves values towards 0.
    gated = [low for low, other in zip(lowest, reversed(node.input), strict=True) if _is_gate(other, graph)]
    return max(gated, default=-math.inf)


def _is_silu(node: NodeProto, graph: PairedGraph) -> bool:
    return any(
        (maker := graph.maker(gate)) is not None and maker.op_type == "Sigmoid" and maker.input[0] == value
        for value, gate in (node.input, reversed(node.input))
    )


def _is_gate(name: str, graph: PairedGraph) -> bool:
    """Whether a value lies between 0 and 1."""
    node = graph.maker(name)
    if node is None:
        return False
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _is_gate(node.input[0], graph)
    return node.op_type in _HIGHEST_IS_ONE
