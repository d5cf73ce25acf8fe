"""The quantization operators: PyTorch's own arithmetic, and one node each in the exported graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import edgekd
from edgekd.export._operators import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor
from edgekd.export.int8 import with_constant_scales
from edgekd.export.onnx import graph_of
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.runtime.preprocess import InputShape


def _network():
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    network = insert(nn.Sequential(*layers).eval()).model
    observe(network)
    with torch.no_grad():
        network(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3)))
    freeze(network)
    return network


def test_per_tensor_is_fake_quantization_in_two_halves():
    values, scale = torch.linspace(-3, 3, 4001), 0.0173
    steps = quantize_per_tensor(values, scale)
    assert steps.dtype == torch.int8 and steps.min() == -128 and steps.max() == 127
    expected = torch.fake_quantize_per_tensor_affine(values, scale, 0, -128, 127)
    assert torch.equal(dequantize_per_tensor(steps, scale), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_per_channel_scales_the_channels_of_its_axis(axis):
    steps = torch.arange(-12, 12, dtype=torch.int8).reshape(2, 2, 6)
    scale, zero_points = torch.tensor([0.5, 2.0]), torch.tensor([0, 1], dtype=torch.int8)
    found = dequantize_per_channel(steps, scale, zero_points, axis)
    for channel in (0, 1):
        expected = (steps.select(axis, channel).float() - zero_points[channel]) * scale[channel]
        assert torch.equal(found.select(axis, channel), expected)


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (quantize_per_tensor, (torch.randn(2, 3), 0.1)),
        (dequantize_per_tensor, (torch.ones(2, 3, dtype=torch.int8), 0.1)),
        (dequantize_per_channel, (torch.ones(2, 3, dtype=torch.int8), torch.ones(3), torch.ones(3).char(), 1)),
    ],
)
def test_the_shapes_known_to_torch_export_are_the_real_ones(operator, arguments):
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("opset", [17, 21])
def test_each_operator_is_one_node_of_onnx_itself(opset):
    network = _network()
    graph = graph_of(with_constant_scales(network), InputShape(3, 8, 8), opset)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"} and not graph.functions
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [opset]
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    makers = {name: node for node in graph.graph.node for name in node.output}
    pairs = [node for node in graph.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in makers]
    weights = [node for node in graph.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    assert len(pairs) == sum(node.op_type == "QuantizeLinear" for node in graph.graph.node) > 2 and len(weights) == 2
    for node in pairs:
        assert list(makers[node.input[0]].input[1:]) == list(node.input[1:])
    for node in (*pairs, *weights):
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any()
        assert constants[node.input[1]].data_type == TensorProto.FLOAT
    for node in weights:
        assert next(each.i for each in node.attribute if each.name == "axis") == 0
    steps = numpy_helper.to_array(constants[weights[0].input[0]])
    scale = numpy_helper.to_array(constants[weights[0].input[1]])
    np.testing.assert_array_equal(steps * scale.reshape(-1, 1, 1, 1), network.get_submodule("0").weight.detach())


def test_nothing_depends_on_pytorchs_private_quantization():
    for file in Path(edgekd.__file__).parent.rglob("*.py"):
        assert not re.search(r"torch\.ao\b|quantized_decomposed", file.read_text("utf-8")), file
