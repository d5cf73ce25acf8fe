"""Widens depthwise convolutions to whole registers: ONNX Runtime computes the channels beyond one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto

from edgekd.export._pairs import Array, PairedGraph

# A kernel computes 16 channels at once. More than a third more would cost more than it gains.
_REGISTER, _MOST = 16, 4 / 3
# What they compute for one channel depends on that channel alone.
_PER_CHANNEL = frozenset({"Relu", "Clip", "HardSwish", "Sigmoid", "HardSigmoid", "Mul", "Add", "GlobalAveragePool"}) | {
    *("QuantizeLinear", "DequantizeLinear", "MaxPool", "AveragePool"),
}


@dataclass(frozen=True)
class _Region:
    """The values of as many channels around a depthwise convolution, and the convolutions that make and read them."""

    channels: int
    values: set[str] = field(default_factory=set)
    making: dict[str, NodeProto] = field(default_factory=dict)
    reading: dict[str, NodeProto] = field(default_factory=dict)


def widened_depthwise(graph: PairedGraph) -> None:
    """Add channels whose weights are zeros to every depthwise convolution that has other than multiples of 16.

    They begin and end inside: in the outputs of the convolutions before, and the inputs of those behind. What these
    compute stays the same, bit for bit.
    """
    for node in graph.nodes("Conv"):
        steps = _steps(node, graph)
        if steps is None or not _is_depthwise(node, steps):
            continue
        channels = len(steps)
        wider = -(-channels // _REGISTER) * _REGISTER
        region = _region(node, channels, graph) if channels < wider <= _MOST * channels else None
        if region is not None:
            _widen(region, wider - channels, graph)


def _region(depthwise: NodeProto, channels: int, graph: PairedGraph) -> _Region | None:
    """None where the channels meet an operator that may not be widened."""
    found, pending = _Region(channels), [depthwise.input[0], depthwise.output[0]]
    while pending:
        value = pending.pop()
        if value in found.values:
            continue
        found.values.add(value)
        maker = graph.maker(value)
        if maker is None or graph.is_output(value):
            return None
        for node in (maker, *graph.users(value)):
            further = _through(node, value, found, graph)
            if further is None:
                return None
            pending.extend(further)
    return found


def _through(node: NodeProto, value: str, found: _Region, graph: PairedGraph) -> Iterable[str] | None:
    """The other values of a node that have the same channels; None where it may not be widened."""
    if node.op_type == "Conv":
        steps = _steps(node, graph)
        if steps is None or value in node.input[1:]:
            return None
        if _is_depthwise(node, steps):
            found.making[node.output[0]] = node
            return (node.input[0], node.output[0])
        # A gate for all channels is made by a convolution with one output.
        if _groups(node) != 1 or steps.shape[0 if value == node.output[0] else 1] != found.channels:
            return None
        (found.making if value == node.output[0] else found.reading)[node.output[0]] = node
        return ()
    read = node.input[:2] if node.op_type in ("Mul", "Add") else node.input[:1]
    if node.op_type not in _PER_CHANNEL or any(graph.constant(name) is not None for name in read):
        return None
    return (*read, node.output[0])


def _widen(region: _Region, by: int, graph: PairedGraph) -> None:
    for node in region.making.values():
        weight = graph.maker(node.input[1])
        assert weight is not None
        for place, fill in ((0, 0), (1, 1), (2, 0)):
            _pad(weight, place, 0, by, fill, graph)
        if len(node.input) > 2:
            _pad(node, 2, 0, by, 0, graph)
        groups = next((held for held in node.attribute if held.name == "group"), None)
        if groups is not None and groups.i != 1:
            groups.i += by
    for node in region.reading.values():
        weight = graph.maker(node.input[1])
        assert weight is not None
        _pad(weight, 0, 1, by, 0, graph)


def _pad(node: NodeProto, place: int, axis: int, by: int, fill: int, graph: PairedGraph) -> None:
    """Let a node read a constant with more values along an axis."""
    values = graph.constant(node.input[place])
    assert values is not None
    more = [(0, by if each == axis else 0) for each in range(values.ndim)]
    padded = np.pad(values, more, constant_values=fill)
    graph.set_input(node, place, graph.add_constant(node.input[place], padded))


def _steps(node: NodeProto, graph: PairedGraph) -> Array | None:
    """The int8 weight of a convolution, whose bias is constant; else None."""
    weight = graph.maker(node.input[1])
    if weight is None or weight.op_type != "DequantizeLinear" or len(graph.users(weight.output[0])) != 1:
        return None
    constant = all(graph.constant(name) is not None for name in node.input[2:])
    return graph.constant(weight.input[0]) if constant else None


def _groups(node: NodeProto) -> int:
    return next((int(held.i) for held in node.attribute if held.name == "group"), 1)


def _is_depthwise(node: NodeProto, steps: Array) -> bool:
    return _groups(node) == len(steps) > 1 and steps.shape[1] == 1
