"""What an ONNX classifier takes and gives, what it costs, and the same graph behind other inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgekd.errors import ModelError, summary
from edgekd.models.conversion import Conversion

INPUT, LOGITS = "input", "logits"
_WEIGHTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8)
# Below any probability that matters, so that none has an infinite logarithm.
_LEAST = np.array(1e-12, np.float32)


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives.

    Attributes:
        input, output: names.
        shape: of an image, (C, H, W); 0 for a size that the graph leaves open.
        channels_last: whether the input is (B, H, W, C).
        batch: the fixed batch size; None where it is free.
    """

    input: str
    output: str
    shape: tuple[int, int, int]
    channels_last: bool
    batch: int | None


def signature(model: onnx.ModelProto, classes: int) -> Signature:
    """Find the input for images, and the output with one value per class.

    Raises:
        ModelError: there are none, or several.
    """
    graph = _inferred(model).graph
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    shapes = [_shape(each) for each in inputs]
    if len(inputs) != 1 or len(shapes[0]) != 4 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        kinds = [TensorProto.DataType.Name(each.type.tensor_type.elem_type).lower() for each in inputs]
        named = zip(inputs, kinds, shapes, strict=True)
        found = ", ".join(f"{each.name}, {kind} {_shown(shape)}" for each, kind, shape in named)
        raise ModelError("it does not take images", found=found or "no input", allowed="one float32 input (B, C, H, W)")
    batch, *sizes = shapes[0]
    last = sizes[0] not in (1, 3) and sizes[2] in (1, 3)
    channels, height, width = (sizes[2], sizes[0], sizes[1]) if last else sizes
    outputs = {each.name: _shape(each) for each in graph.output}
    fitting = [name for name, shape in outputs.items() if shape[1:] == (classes,)]
    fitting = fitting or [name for name, shape in outputs.items() if shape[1:] in ((0,), ()) and len(outputs) == 1]
    if len(fitting) != 1:
        found = ", ".join(f"{name} {_shown(shape)}" for name, shape in outputs.items())
        raise ModelError("it has no single output with one value per class", found=found, allowed=f"(B, {classes})")
    return Signature(inputs[0].name, fitting[0], (channels or 3, height, width), last, batch or None)


def framed(
    model: onnx.ModelProto, seen: Signature, conversions: Sequence[Conversion] = (), *, log: bool = False
) -> onnx.ModelProto:
    """The graph from `input` (B, C, H, W), as the first conversion is given it, to `logits`.

    Args:
        model: not changed.
        seen: its signature.
        conversions: of the input, in order.
        log: whether the output is probabilities, whose logarithms are the logits.
    """
    result = copy.deepcopy(model)
    graph = result.graph
    _rename(graph, {INPUT: "edgekd_own_input", LOGITS: "edgekd_own_logits"})
    own = {INPUT: "edgekd_own_input", LOGITS: "edgekd_own_logits"}
    fed, made = own.get(seen.input, seen.input), own.get(seen.output, seen.output)
    before = _Chain(INPUT, "before")
    for conversion in conversions:
        before.add("Conv", np.ascontiguousarray(conversion.mix[:, :, None, None]))
        before.add("Add", conversion.shift[None, :, None, None])
        if conversion.rows is not None:
            before.add("MatMul", conversion.rows, first=True)
        if conversion.columns is not None:
            before.add("MatMul", np.ascontiguousarray(conversion.columns.T))
    if seen.channels_last:
        before.add("Transpose", perm=[0, 2, 3, 1])
    after = _Chain(made, "after")
    if log:
        after.add("Add", _LEAST)
        after.add("Log")
    shape = conversions[0].given if conversions else tuple(side or None for side in seen.shape)
    nodes = [*before.ended(fed), *graph.node, *after.ended(LOGITS)]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    weights = [each for each in graph.input if each.name != fed]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [seen.batch or "batch", *shape]))
    graph.input.extend(weights)
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [seen.batch or "batch", None]))
    return result


def cost(model: onnx.ModelProto) -> dict[str, int]:
    """A graph's parameters, and the multiply-accumulates of its convolutions and matrix products on one image."""
    graph = _inferred(model).graph
    known = {each.name: _shape(each) for each in (*graph.value_info, *graph.input, *graph.output)}
    shapes = {name: tuple(side or 1 for side in shape) for name, shape in known.items()}
    shapes.update({each.name: tuple(each.dims) for each in graph.initializer})
    batch = next((shape[0] for each in graph.input if len(shape := shapes[each.name]) == 4), 1)
    parameters = sum(math.prod(each.dims) for each in graph.initializer if each.data_type in _WEIGHTS)
    return {"parameters": parameters, "macs": sum(_macs(node, shapes) for node in graph.node) // batch}


class _Chain:
    """Nodes that each take the output of the one before. Their operators are the same in every opset."""

    def __init__(self, start: str, name: str) -> None:
        self._current, self._name = start, f"edgekd_{name}"
        self._nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self, operator: str, constant: npt.NDArray[np.float32] | None = None, *, first: bool = False, **attributes: Any
    ) -> None:
        name = f"{self._name}_{len(self._nodes)}"
        inputs = [self._current]
        if constant is not None:
            self.constants.append(numpy_helper.from_array(constant, f"{name}_constant"))
            inputs.insert(0 if first else 1, f"{name}_constant")
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self._current = name

    def ended(self, name: str) -> list[onnx.NodeProto]:
        """The nodes, the last of which gives `name`."""
        self.add("Identity")
        self._nodes[-1].output[0] = name
        return self._nodes


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, names)
    for each in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        each.name = names.get(each.name, each.name)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model)
    except shape_inference.InferenceError as error:
        raise ModelError("its shapes contradict each other", found=summary(error)) from None


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """0 for what is not fixed."""
    return tuple(each.dim_value for each in value.type.tensor_type.shape.dim)


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(str(side) if side else '?' for side in shape)})"


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    made = math.prod(shapes.get(node.output[0], (0,)))
    if node.op_type == "Conv":
        return made * math.prod(shapes.get(node.input[1], (0,))[1:])
    if node.op_type == "MatMul":
        return made * shapes.get(node.input[0], (0,))[-1]
    if node.op_type == "Gemm":
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        return made * shapes.get(node.input[1], (0, 0))[1 if turned else 0]
    return 0
