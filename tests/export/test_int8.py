"""Quantizers → explicit Q/DQ → the real runtime: the same answers, in graphs that their engines can take."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edgekd.errors import ModelError
from edgekd.export.int8 import with_constant_scales
from edgekd.export.legality import VERSIONS, check
from edgekd.export.numerics import real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.settings import ExportSettings
from edgekd.runtime.backends import open_session
from edgekd.stages.quantize import calibrate

# The whole chain in tests/cli runs a depthwise network by default.
NETWORKS = [pytest.param("torchvision/mobilenet_v2", marks=pytest.mark.slow), "cifar/resnet8"]


def _folder(place, name):
    (place / name).mkdir()
    return place / name


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, small_digits, tmp_path_factory):
    """A calibrated checkpoint with both of its int8 graphs."""
    place = tmp_path_factory.mktemp("int8")
    torch.manual_seed(5)
    arguments = {"width_mult": 0.35} if "mobilenet" in request.param else {}
    architecture = Architecture(
        model=request.param, arguments=arguments, num_classes=10, small_stem="mobilenet" in request.param
    )
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    student = checkpoints.save(
        network,
        architecture,
        preprocessing=small_digits.details.preprocessing,
        classes=small_digits.classes,
        out=_folder(place, "float"),
    )
    calibrated = calibrate(student, small_digits, 64, _folder(place, "calibrated"))
    settings = ExportSettings()
    int8 = find("int8").export(calibrated, small_digits, settings, _folder(place, "int8"))
    x64 = find("int8-x64").export(int8, small_digits, settings, _folder(place, "x64"))
    return student, calibrated, {"int8": int8, "int8-x64": x64}


def test_constants_in_the_network_change_nothing(exported, small_digits):
    network = checkpoints.load(exported[1])
    inputs = torch.from_numpy(real_inputs(small_digits, 32))
    with torch.no_grad():
        expected = network(inputs)
        torch.testing.assert_close(with_constant_scales(network)(inputs), expected, rtol=0, atol=1e-5)
        assert torch.equal(network(inputs), expected)  # the network itself was left alone


def test_without_optimisation_the_graph_gives_the_networks_own_answers(exported, small_digits):
    _, calibrated, models = exported
    inputs = real_inputs(small_digits, 64)
    with torch.no_grad():
        expected = checkpoints.load(calibrated)(torch.from_numpy(inputs)).numpy()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = models["int8"].path / "all-pairs.onnx"
    found = onnxruntime.InferenceSession(graph, options).run(None, {"input": inputs})[0]
    # A value that lies on the edge between two steps may fall to either side: all but a few images agree closely.
    difference = np.abs(found - expected).max(1) / np.abs(expected).max()
    assert np.median(difference) < 5e-3 and (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_the_graph_is_symmetric_with_int8_weights_and_float_biases(exported):
    _, calibrated, models = exported
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


def test_every_version_of_tensorrt_may_take_it(exported):
    graph = onnx.load(exported[2]["int8"].graph)
    for version in VERSIONS:
        verdict = check(graph, version)
        assert verdict.legal, verdict.findings
        # Narrow layers are what this network has; nothing else is in doubt.
        assert {finding.rule for finding in verdict.findings} <= {"channels"}


def test_the_x64_graph_is_refused_for_tensorrt(exported):
    assert not check(onnx.load(exported[2]["int8-x64"].graph), "10.3").legal


def test_onnx_runtime_computes_every_convolution_of_the_x64_graph_in_int8(exported, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(exported[2]["int8-x64"].graph, options)
    before = Counter(node.op_type for node in onnx.load(exported[2]["int8-x64"].graph).graph.node)
    after = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert after["QLinearConv"] == before["Conv"] > 0 and after["Conv"] == 0


def test_an_addition_keeps_one_quantized_input_for_tensorrt_and_both_for_onnx_runtime(exported):
    _, _, models = exported
    for name, quantized in (("int8", 1), ("int8-x64", 2)):
        graph = onnx.load(models[name].graph).graph
        makers = {output: node.op_type for node in graph.node for output in node.output}
        additions = [node for node in graph.node if node.op_type == "Add"]
        assert additions
        for node in additions:
            found = [makers[each] for each in node.input]
            assert found.count("DequantizeLinear") == quantized or "Conv" not in found


def test_int8_weights_are_stored_as_such_where_the_engine_takes_them(exported):
    _, _, models = exported
    sizes = {name: model.graph.stat().st_size for name, model in models.items()}
    assert 0.25 < sizes["int8-x64"] / sizes["int8"] < 0.6


def test_weights_and_their_grids_have_the_names_of_the_network(exported):
    for model in exported[2].values():
        names = {tensor.name for tensor in onnx.load(model.graph).graph.initializer}
        assert sum(name.endswith(".weight_scale") for name in names) > 2
        assert not [name for name in names if "parametrizations" in name]


def test_both_graphs_take_any_batch(exported, small_digits):
    for model in exported[2].values():
        session = open_session(model.graph)
        inputs = real_inputs(small_digits, 5)
        together = session.bind(inputs)()
        np.testing.assert_allclose(together[2:3], session.bind(inputs[2:3])(), atol=1e-4 * np.abs(together).max())


def test_a_network_without_quantizers_has_no_int8(exported, small_digits, tmp_path):
    with pytest.raises(ModelError, match="has no quantizers(?s:.)*edgekd quantize"):
        find("int8").export(exported[0], small_digits, ExportSettings(), tmp_path)
