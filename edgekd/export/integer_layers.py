"""Forms of layers for which ONNX Runtime has integer kernels, or faster ones, on uint8 activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from edgekd.export._pairs import PairedGraph

_SPATIAL = {(2, 3), (-2, -1)}
# The first layer's channels that a memory copy of the engine's convolution moves at once.
_CHANNELS = 4
# Others, as Split, need the grid of what they read.
_COMPUTING = ("Conv", "Relu", "Clip", "Add", "Mul")


def integer_pool(graph: PairedGraph) -> None:
    """Make every mean over rows and columns a GlobalAveragePool: a ReduceMean is computed in float."""
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.graph.value_info}
    for node in graph.nodes("ReduceMean"):
        pair, after = graph.pair_of(node.input[0]), graph.pair_after(node.output[0])
        if pair is None or after is None or ranks.get(pair.result) != 4 or _axes(node, graph) not in _SPATIAL:
            continue
        if _attribute(node, "keepdims", 1):
            graph.become(node, "GlobalAveragePool", [pair.result])
            continue
        name, grid = node.output[0], graph.scale_and_zero(after.quantize)
        pooled = graph.insert(node, "GlobalAveragePool", [pair.result], f"{name}_pooled")
        graph.become(node, "Flatten", [graph.insert_pair(node, pooled, *grid, f"{name}_pooled_pair")], axis=1)


def integer_bias(graph: PairedGraph) -> None:
    """Store the bias of every Gemm on quantized values as int32 steps: with a float bias it is computed in float."""
    for node in graph.nodes("Gemm"):
        pair, weight = graph.pair_of(node.input[0]), graph.maker(node.input[1])
        bias = graph.constant(node.input[2]) if len(node.input) > 2 else None
        if pair is None or bias is None or weight is None or weight.op_type != "DequantizeLinear":
            continue
        scales = graph.constant(weight.input[1])
        if scales is None or any(_attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
            continue
        scale, _ = graph.scale_and_zero(pair.dequantize)
        size = (scale * scales.astype(np.float64)).astype(np.float32)
        steps = np.rint(bias / size.astype(np.float64))
        if (np.abs(steps) > np.iinfo(np.int32).max).any():
            continue
        name = node.input[2]
        inputs = [
            graph.add_constant(f"{name}_steps", steps.astype(np.int32)),
            graph.add_constant(f"{name}_scale", size),
            graph.add_constant(f"{name}_zero", np.zeros(size.shape, np.int32)),
        ]
        graph.set_input(node, 2, graph.insert(node, "DequantizeLinear", inputs, f"{name}_dequantized", axis=0))


def padded_channels(graph: PairedGraph) -> None:
    """Give the first convolution a fourth input channel, of zeros: its kernel copies pixels of 4 bytes faster."""
    inputs = {value.name for value in graph.graph.input}
    for node in graph.nodes("Conv"):
        pair, weight = graph.pair_of(node.input[0]), graph.maker(node.input[1])
        steps = None if weight is None or weight.op_type != "DequantizeLinear" else graph.constant(weight.input[0])
        if pair is None or weight is None or steps is None or pair.source not in inputs:
            continue
        missing = _CHANNELS - steps.shape[1]
        if steps.ndim != 4 or missing != 1 or _attribute(node, "group", 1) != 1:
            continue
        # Whatever else reads the image, or the weight, would meet the fourth channel too.
        if not all(map(graph.is_private, (pair.steps, pair.result, weight.output[0]))):
            continue
        name = pair.steps
        # Zeros are the zero point's step.
        wider = [
            graph.add_constant(f"{name}_pads", np.array([0, 0, 0, 0, 0, missing, 0, 0])),
            pair.dequantize.input[2],
        ]
        padded = graph.insert(pair.dequantize, "Pad", [name, *wider], f"{name}_padded")
        graph.set_input(pair.dequantize, 0, padded)
        widened = np.pad(steps, ((0, 0), (0, missing), (0, 0), (0, 0)))
        graph.set_input(weight, 0, graph.add_constant(weight.input[0], widened))


def shared_grids(graph: PairedGraph) -> None:
    """Round the parts of a concatenation to its steps at once where nothing else reads them: then it only copies."""
    for node in graph.nodes("Concat"):
        after = graph.pair_after(node.output[0])
        if after is None or not after.has_one_grid:
            continue
        for name in node.input:
            pair = graph.pair_of(name)
            maker = None if pair is None else graph.maker(pair.source)
            if pair is None or not pair.has_one_grid or maker is None or maker.op_type not in _COMPUTING:
                continue
            if not all(map(graph.is_private, (pair.source, pair.steps, pair.result))):
                continue
            # With another zero point a ReLU before it would no longer be part of the convolution.
            if graph.scale_and_zero(pair.quantize)[1] == graph.scale_and_zero(after.quantize)[1]:
                graph.put_on(pair, list(after.quantize.input[1:]))


def _axes(node: NodeProto, graph: PairedGraph) -> tuple[int, ...]:
    given = graph.constant(node.input[1]) if len(node.input) > 1 else _attribute(node, "axes", ())
    return tuple(sorted(int(axis) for axis in given)) if given is not None else ()


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = next((held for held in node.attribute if held.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
