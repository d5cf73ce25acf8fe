"""The int8 graph for engines that take explicit Q/DQ with symmetric activations."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgekd.errors import ModelError
from edgekd.export.legality import VERSIONS, check
from edgekd.export.numerics import real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.settings import ExportSettings
from edgekd.runtime.backends import open_session


def test_the_graph_is_symmetric_with_int8_weights_and_float_biases(int8_graphs):
    _, calibrated, models = int8_graphs
    graph = onnx.load(models["int8"].graph).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero, scale = constants[node.input[2]], numpy_helper.to_array(constants[node.input[1]])
            assert zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any()
            assert (scale > 0).all()
        if node.op_type in ("Conv", "Gemm"):
            pair = makers[node.input[1]], makers[makers[node.input[1]].input[0]]
            assert [half.op_type for half in pair] == ["DequantizeLinear", "QuantizeLinear"]
            weight, scale = (numpy_helper.to_array(constants[name]) for name in pair[1].input[:2])
            assert scale.shape == weight.shape[:1]
            steps = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
            np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
            assert np.abs(steps).max() < 128
            assert all(constants[bias].data_type == TensorProto.FLOAT for bias in node.input[2:])
    scales = {float(q.scale) for q in activation_quantizers(checkpoints.load(calibrated)).values()}
    written = {
        float(numpy_helper.to_array(constants[node.input[1]]))
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }
    assert written <= {np.float32(scale) for scale in scales}


def test_every_version_of_tensorrt_may_take_it(int8_graphs):
    graph = onnx.load(int8_graphs[2]["int8"].graph)
    for version in VERSIONS:
        verdict = check(graph, version)
        assert verdict.legal, verdict.findings
        # Narrow layers are what this network has; nothing else is in doubt.
        assert {finding.rule for finding in verdict.findings} <= {"channels"}


def test_a_network_without_quantizers_has_no_int8(int8_graphs, small_digits, tmp_path):
    with pytest.raises(ModelError, match="has no quantizers(?s:.)*edgekd quantize"):
        find("int8").export(int8_graphs[0], small_digits, ExportSettings(), tmp_path)


def test_both_graphs_take_any_batch(int8_graphs, small_digits):
    for model in int8_graphs[2].values():
        session = open_session(model.graph)
        inputs = real_inputs(small_digits, 5)
        together = session.bind(inputs)()
        np.testing.assert_allclose(together[2:3], session.bind(inputs[2:3])(), atol=1e-4 * np.abs(together).max())


def test_an_addition_keeps_one_quantized_input_for_tensorrt_and_both_for_onnx_runtime(int8_graphs):
    _, _, models = int8_graphs
    for name, quantized in (("int8", 1), ("int8-asym", 2)):
        graph = onnx.load(models[name].graph).graph
        makers = {output: node.op_type for node in graph.node for output in node.output}
        additions = [node for node in graph.node if node.op_type == "Add"]
        assert additions
        for node in additions:
            found = [makers[each] for each in node.input]
            assert found.count("DequantizeLinear") == quantized or "Conv" not in found
