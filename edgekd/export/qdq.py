"""Passes over the Q/DQ pairs of an ONNX graph, for TensorRT and for ONNX Runtime's fast kernels."""

from __future__ import annotations

import math

import numpy as np
import onnx

from edgekd.export._pairs import Pair, PairedGraph
from edgekd.export.bounds import lowest_of

_HIGHEST, _HIGHEST_UNSIGNED = 127, 255


def without_fused_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the Q/DQ pair between a convolution and an addition, where the addition's other input has one.

    TensorRT fuses such a convolution with the addition if there is nothing between them.
    """
    own = PairedGraph(model)
    for add in own.nodes("Add"):
        quantized = [pair for pair in map(own.pair_of, add.input) if pair is not None]
        fused = [pair for pair in quantized if _is_fused(pair, own)]
        if len(quantized) == 2 and fused:
            own.set_input(add, list(add.input).index(fused[0].result), fused[0].source)
            own.remove(fused[0].dequantize, fused[0].quantize)
    own.drop_unused()
    return own.model


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are float constants with a complete Q/DQ pair, on exactly the same steps.

    This is what quantization toolkits export for TensorRT 8; whether it also accepts weights stored in int8 is not
    known. Neither form was tried on TensorRT.
    """
    own = PairedGraph(model)
    for node in reversed(own.nodes("DequantizeLinear")):
        steps, scale = own.constant(node.input[0]), own.constant(node.input[1])
        if steps is None or scale is None:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if each == axis else 1 for each in range(steps.ndim)]
        weight = own.add_constant(f"{node.input[0]}_float", (steps * scale.reshape(shape)).astype(np.float32))
        inputs = [weight, *node.input[1:]]
        made = f"{node.output[0]}_steps"
        node.input[0] = own.insert(node, "QuantizeLinear", inputs, made, title=f"{node.name}_pair", axis=axis)
    own.drop_unused()
    return own.model


def with_unsigned_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with uint8 activations, whose Q/DQ pairs ONNX Runtime fuses, across a ReLU too.

    A value that is provably never below 0, or never far below it as after a hard-swish, gets a range that begins there
    and ends where it did, in finer steps. Any other gets zero point 128, which shifts the steps. Weights are as before.
    """
    own = PairedGraph(model)
    lowest = {pair.result: lowest_of(pair.source, own) for pair in own.pairs()}
    for pair in list(own.pairs()):
        scale, _ = own.scale_and_zero(pair.quantize)
        own.put_on(pair, own.grid(pair.source, *unsigned(lowest[pair.result], scale * _HIGHEST)))
    return own.finish()


def unsigned(lowest: float, highest: float) -> tuple[float, int]:
    """Scale and zero point of uint8 steps from `lowest` to `highest`; at most as coarse as int8 steps to `highest`."""
    lowest = max(min(lowest, 0.0), -highest)
    zero = min(math.ceil(-lowest / (highest - lowest) * _HIGHEST_UNSIGNED), _HIGHEST_UNSIGNED - _HIGHEST)
    return highest / (_HIGHEST_UNSIGNED - zero), zero


def _is_fused(pair: Pair, graph: PairedGraph) -> bool:
    maker = graph.maker(pair.source)
    alone = all(graph.is_private(name) for name in (pair.source, pair.steps, pair.result))
    return maker is not None and maker.op_type == "Conv" and alone
