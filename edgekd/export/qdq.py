"""Passes over the Q/DQ pairs of an ONNX graph, for TensorRT and for ONNX Runtime's fast kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

# Operators whose output is never below 0.
_POSITIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs"})
# Operators whose output is never below 0 if their first input is not; other inputs are numbers such as axes.
_KEEPS_SIGN = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Identity", "Reshape"}
) | {"Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "QuantizeLinear", "DequantizeLinear"}
_ALL_INPUTS = frozenset({"Concat", "Add", "Mul", "Max"})
_INT8_TO_UINT8 = 128


@dataclass(frozen=True)
class _Pair:
    """A QuantizeLinear and the DequantizeLinear after it."""

    quantize: NodeProto
    dequantize: NodeProto

    @property
    def source(self) -> str:
        return str(self.quantize.input[0])

    @property
    def result(self) -> str:
        return str(self.dequantize.output[0])


def without_fused_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the Q/DQ pair between a convolution and an addition, where the addition's other input has one.

    TensorRT fuses such a convolution with the addition if there is nothing between them.
    """
    own = onnx.ModelProto()
    own.CopyFrom(model)
    graph = own.graph
    makers, users = _makers(graph), _users(graph)
    pairs = {pair.result: pair for pair in _pairs(graph)}
    for add in [node for node in graph.node if node.op_type == "Add"]:
        quantized = [pairs[name] for name in add.input if name in pairs]
        fused = [pair for pair in quantized if _is_fused(pair, makers, users)]
        if len(quantized) == 2 and fused:
            pair = fused[0]
            add.input[list(add.input).index(pair.result)] = pair.source
            for node in (pair.dequantize, pair.quantize):
                graph.node.remove(node)
    _drop_unused(graph)
    return own


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are float constants with a complete Q/DQ pair, on exactly the same steps.

    This is what quantization toolkits export for TensorRT 8; whether it also accepts weights stored in int8 is not
    known. Neither form was tried on TensorRT.
    """
    own = onnx.ModelProto()
    own.CopyFrom(model)
    graph = own.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in reversed(list(enumerate(graph.node))):
        steps = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if steps is None:
            continue
        values, scale = numpy_helper.to_array(steps), numpy_helper.to_array(constants[node.input[1]])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        weight = (values * scale.reshape(shape)).astype(np.float32)
        quantize = onnx.helper.make_node(
            "QuantizeLinear",
            [_constant(graph, constants, f"{steps.name}_float", weight), *node.input[1:]],
            [f"{node.output[0]}_steps"],
            name=f"{node.name}_pair",
            axis=axis,
        )
        node.input[0] = quantize.output[0]
        graph.node.insert(place, quantize)
    _drop_unused(graph)
    return own


def with_unsigned_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with uint8 activations, whose Q/DQ pairs ONNX Runtime fuses, across a ReLU too.

    A value that is provably never below 0 gets zero point 0 and the scale times 127/255: the same range in finer steps.
    Any other gets zero point 128, which shifts the steps. Weights are not changed.
    """
    own = onnx.ModelProto()
    own.CopyFrom(model)
    graph = own.graph
    makers = _makers(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for pair in list(_pairs(graph)):
        positive = _is_positive(pair.source, makers, constants)
        scale = numpy_helper.to_array(constants[pair.quantize.input[1]])
        if positive:
            scale = (scale.astype(np.float64) * 127 / 255).astype(scale.dtype)
        named = pair.source.replace("/", "_")
        inputs = [
            _constant(graph, constants, f"{named}_scale", scale),
            _constant(graph, constants, f"{named}_zero", np.array(0 if positive else _INT8_TO_UINT8, np.uint8)),
        ]
        for node in (pair.quantize, pair.dequantize):
            node.input[1:] = inputs
    _drop_unused(graph)
    # The exporter's value types are no longer valid.
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(own, check_type=True, strict_mode=True)


def _pairs(graph: onnx.GraphProto) -> Iterator[_Pair]:
    makers = _makers(graph)
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            yield _Pair(maker, node)


def _is_fused(pair: _Pair, makers: dict[str, NodeProto], users: dict[str, int]) -> bool:
    maker = makers.get(pair.source)
    alone = all(users[name] == 1 for name in (pair.source, pair.quantize.output[0], pair.result))
    return maker is not None and maker.op_type == "Conv" and alone


def _is_positive(name: str, makers: dict[str, NodeProto], constants: dict[str, TensorProto]) -> bool:
    """Whether a value is provably never below 0."""
    if name in constants:
        return bool((numpy_helper.to_array(constants[name]) >= 0).all())
    node = makers.get(name)
    if node is None:
        return False
    if node.op_type in _POSITIVE:
        return True
    if node.op_type == "Clip":
        lowest = constants.get(node.input[1]) if len(node.input) > 1 else None
        return lowest is not None and bool(numpy_helper.to_array(lowest) >= 0)
    if node.op_type in _KEEPS_SIGN:
        return _is_positive(node.input[0], makers, constants)
    return node.op_type in _ALL_INPUTS and all(_is_positive(each, makers, constants) for each in node.input)


def _constant(
    graph: onnx.GraphProto, constants: dict[str, TensorProto], name: str, value: npt.NDArray[np.generic]
) -> str:
    while name in constants:
        name += "_"
    constants[name] = numpy_helper.from_array(value, name)
    graph.initializer.append(constants[name])
    return name


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = _users(graph)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _makers(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _users(graph: onnx.GraphProto) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for name in [*(name for node in graph.node for name in node.input), *(output.name for output in graph.output)]:
        counts[name] += 1
    return dict(counts)
