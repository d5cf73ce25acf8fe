"""Depthwise convolutions with more channels: the same answers, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from paired_graphs import grids, model_of, pair, run

from edgekd.export._pairs import PairedGraph
from edgekd.export.qdq import with_unsigned_activations
from edgekd.export.wide_depthwise import widened_depthwise

SHAPE = ("n", 4, 6, 6)


class _Layers:
    """Nodes and constants of a graph of convolutions with stored int8 weights."""

    def __init__(self) -> None:
        self.nodes, self.constants = pair("x", "a", "s"), grids(s=0.03)
        self._rng = np.random.default_rng(0)

    def conv(self, source: str, name: str, shape: tuple[int, ...], group: int = 1, bias: bool = True) -> str:
        """With a ReLU and a pair behind it."""
        self.constants |= {
            f"{name}_w": self._rng.integers(-127, 128, shape, dtype=np.int8),
            f"{name}_ws": self._rng.uniform(0.001, 0.01, shape[0]).astype(np.float32),
            f"{name}_wz": np.zeros(shape[0], np.int8),
            f"{name}_b": np.abs(self._rng.normal(size=shape[0])).astype(np.float32),
        }
        side = shape[-1] // 2
        inputs = [source, f"{name}_weight", *([f"{name}_b"] if bias else [])]
        weight = [f"{name}_w", f"{name}_ws", f"{name}_wz"]
        self.nodes += [
            helper.make_node("DequantizeLinear", weight, [f"{name}_weight"], axis=0),
            helper.make_node("Conv", inputs, [f"{name}_c"], group=group, pads=[side] * 4, name=name),
            helper.make_node("Relu", [f"{name}_c"], [f"{name}_r"]),
            *pair(f"{name}_r", name, "s"),
        ]
        return name

    def add(self, operator: str, inputs: list[str], name: str, **attributes) -> str:
        self.nodes += [helper.make_node(operator, inputs, [f"{name}_"], **attributes), *pair(f"{name}_", name, "s")]
        return name

    def model(self, rank: int = 4) -> onnx.ModelProto:
        return with_unsigned_activations(model_of(self.nodes, self.constants, shape=SHAPE, rank=rank))


def _widened(model):
    own = PairedGraph(model)
    widened_depthwise(own)
    found = own.finish()
    onnx.checker.check_model(found, full_check=True)
    return found


def _shapes(model):
    """Of every convolution's weight."""
    held = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    return {node.name: held[makers[node.input[1]].input[0]] for node in model.graph.node if node.op_type == "Conv"}


def _assert_same(found, model):
    x = np.random.default_rng(1).uniform(-3, 3, (2, *SHAPE[1:])).astype(np.float32)
    expected = run(model, x)
    assert expected.std() > 0
    np.testing.assert_array_equal(run(found, x), expected)
    # Floats may be added up in another order, and fall on the next step.
    np.testing.assert_allclose(run(found, x, as_written=True), run(model, x, as_written=True), atol=0.016)


def _inverted_bottleneck(channels, bias=True):
    layers = _Layers()
    before = layers.conv("a", "expand", (channels, 4, 1, 1), bias=bias)
    inside = layers.conv(before, "depthwise", (channels, 1, 3, 3), group=channels, bias=bias)
    layers.conv(inside, "y", (5, channels, 1, 1), bias=bias)
    return layers.model()


@pytest.mark.parametrize(("channels", "wider"), [(12, 16), (40, 48), (58, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_channels_of_zeros_fill_the_last_register(channels, wider, bias):
    model = _inverted_bottleneck(channels, bias)
    found = _widened(model)
    assert _shapes(found) == {"expand": (wider, 4, 1, 1), "depthwise": (wider, 1, 3, 3), "y": (5, wider, 1, 1)}
    _assert_same(found, model)


@pytest.mark.parametrize("channels", [16, 32, 8, 11])
def test_whole_registers_stay_and_so_does_what_would_become_much_wider(channels):
    model = _inverted_bottleneck(channels)
    assert _shapes(_widened(model)) == _shapes(model)


def test_gates_are_widened_with_what_they_multiply_and_so_are_residual_additions():
    layers = _Layers()
    before = layers.conv("a", "expand", (12, 4, 1, 1))
    inside = layers.conv(before, "depthwise", (12, 1, 3, 3), group=12)
    pooled = layers.add("GlobalAveragePool", [inside], "pooled")
    gate = layers.conv(layers.conv(pooled, "reduce", (3, 12, 1, 1)), "grow", (12, 3, 1, 1))
    gated = layers.add("Mul", [gate, inside], "gated")
    mixed = layers.add("Add", [layers.conv(gated, "mix", (12, 12, 1, 1)), gated], "mixed")
    layers.conv(mixed, "y", (5, 12, 1, 1))
    model = layers.model()
    found = _widened(model)
    assert set(_shapes(found).values()) == {
        *((16, 4, 1, 1), (16, 1, 3, 3), (3, 16, 1, 1), (16, 3, 1, 1), (16, 16, 1, 1), (5, 16, 1, 1)),
    }
    _assert_same(found, model)


@pytest.mark.parametrize(
    ("operator", "more", "attributes"),
    [
        ("Concat", ["a"], {"axis": 1}),
        ("Flatten", [], {"axis": 1}),
        ("Relu", [], {}),  # whose output is the graph's
        ("Conv", [], {"group": 3}),
    ],
)
def test_channels_that_something_else_sees_stay_as_they_are(operator, more, attributes):
    layers = _Layers()
    inside = layers.conv(layers.conv("a", "expand", (12, 4, 1, 1)), "depthwise", (12, 1, 3, 3), group=12)
    if operator == "Conv":
        layers.conv(inside, "y", (6, 4, 1, 1), **attributes)
    else:
        layers.add(operator, [inside, *more], "y", **attributes)
    model = layers.model(rank=2 if operator == "Flatten" else 4)
    assert _shapes(_widened(model)) == _shapes(model)


def test_a_gate_for_all_channels_keeps_them():
    layers = _Layers()
    inside = layers.conv(layers.conv("a", "expand", (12, 4, 1, 1)), "depthwise", (12, 1, 3, 3), group=12)
    gated = layers.add("Mul", [inside, layers.conv(inside, "gate", (1, 12, 1, 1))], "gated")
    layers.conv(gated, "y", (5, 12, 1, 1))
    model = layers.model()
    assert _shapes(_widened(model)) == _shapes(model)


def test_a_multiplication_by_constants_of_the_channels_keeps_them():
    layers = _Layers()
    layers.constants["factors"] = np.ones((1, 12, 1, 1), np.float32)
    inside = layers.conv(layers.conv("a", "expand", (12, 4, 1, 1)), "depthwise", (12, 1, 3, 3), group=12)
    layers.conv(layers.add("Mul", [inside, "factors"], "scaled"), "y", (5, 12, 1, 1))
    model = layers.model()
    assert _shapes(_widened(model)) == _shapes(model)


def test_constants_that_layers_share_are_not_widened_for_the_others():
    model = _inverted_bottleneck(12)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[2] == "depthwise_wz":
            node.input[2] = "expand_wz"
    found = _widened(model)
    _assert_same(found, model)
    sizes = {numpy_helper.to_array(tensor).size for tensor in found.graph.initializer if "expand_wz" in tensor.name}
    assert sizes == {16}
