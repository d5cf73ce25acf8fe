"""Subnormal numbers do not reach an exported file, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from graphs import model
from onnx import TensorProto, helper, numpy_helper

from edgekd.bench.model_files import model_file
from edgekd.export.numerics import real_inputs
from edgekd.export.subnormals import Flushed, flush_subnormals
from edgekd.export.variants import ordered
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import ExportSettings
from edgekd.runtime.backends import open_reference
from edgekd.stages.export import STAGE
from edgekd.stages.quantize import calibrate

SMALLEST = np.finfo(np.float32).tiny
TINY = np.float32(SMALLEST / 3)


def constant(graph: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in graph.graph.initializer if tensor.name == name))


def test_only_subnormal_numbers_become_0():
    weight = np.array([[TINY, -TINY, SMALLEST, -SMALLEST, 0.0, 1.0, np.inf, 1e-45]], np.float32).T
    double = np.array([[1e-310, 1e-300]])
    graph = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["d", "d"], ["unused"])],
        constants={"w": weight, "d": double, "half": np.float16([1e-7])},
        shape=("batch", 8),
    )
    assert flush_subnormals(graph) == Flushed(weights=4) and flush_subnormals(graph) == Flushed()
    assert constant(graph, "w")[:, 0].tolist() == [0.0, 0.0, SMALLEST, -SMALLEST, 0.0, 1.0, np.inf, 0.0]
    assert constant(graph, "d").tolist() == [[0.0, 1e-300]] and constant(graph, "half")[0] > 0


def test_a_scale_stays_above_0_and_a_divisor_as_it_is():
    scales = np.array([TINY, 0.5], np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "s"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Div", ["z", "by"], ["y"]),
    ]
    graph = model(nodes, constants={"w8": np.ones((8, 2), np.int8), "s": scales, "by": TINY}, shape=("batch", 8))
    assert flush_subnormals(graph) == Flushed(scales=1)
    assert constant(graph, "s").tolist() == [SMALLEST, 0.5] and constant(graph, "by") == TINY


def test_constants_among_the_nodes_and_in_graphs_inside():
    tensor = numpy_helper.from_array(np.full((8, 1), TINY), "held")
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("MatMul", ["x", "c"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)]
    graph = model(nodes, constants={"yes": np.array(True)}, shape=("batch", 8))
    assert flush_subnormals(graph) == Flushed(weights=16)


def test_what_was_changed_is_said():
    assert Flushed(1204, 1).lines == [
        "1,204 subnormal weights set to 0",
        "1 subnormal scale set to the smallest normal number",
    ]
    assert Flushed().lines == []


@pytest.fixture(scope="module")
def dying(small_digits, tmp_path_factory):
    """A network in which training has driven channels towards 0, and its graph in every variant."""
    place = tmp_path_factory.mktemp("dying")
    torch.manual_seed(2)
    architecture = Architecture(model="cifar/resnet8", num_classes=10)
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    first = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))
    norm = next(layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    with torch.no_grad():
        network.linear.weight[:, :16] = 1e-39
        network.linear.bias[0] = -1e-40
        # Each is a normal number; folded into each other they are not.
        first.weight[:4] *= 1e-20
        norm.weight[:4], norm.bias[:4], norm.running_mean[:4] = 1e-20, 0.0, 0.0
        norm.running_var[:4] = 1.0
    made = {"preprocessing": small_digits.details.preprocessing, "classes": small_digits.classes}
    variants = ordered(["fp32", "fp16", "int8", "int8-asym"])
    for folder in ("float", "quantized", *(variant.name for variant in variants)):
        (place / folder).mkdir()
    trained = checkpoints.save(network, architecture, out=place / "float", **made)
    sources = {"float": trained, "quantized": calibrate(trained, small_digits, 64, place / "quantized")}
    graphs = {}
    for variant in variants:
        source = graphs[variant.base] if variant.base is not None else sources[variant.checkpoint]
        graphs[variant.name] = variant.export(source, small_digits, ExportSettings(), place / variant.name)
    return trained, graphs


def test_no_exported_file_has_any(dying):
    for name, made in dying[1].items():
        for file in made.path.glob("*.onnx"):
            graph = onnx.load(file)
            assert flush_subnormals(graph) == Flushed(), (name, file.name)
        assert model_file(made.graph).subnormal_weights == ()


def test_the_count_is_in_the_manifest_and_among_the_facts(dying):
    fp32 = dying[1]["fp32"]
    # The classifier's 160 weights and a bias; 4 kernels of the first layer.
    assert fp32.metrics["subnormals"] == {"weights": 160 + 1 + 4 * 27, "scales": 0}
    assert "269 subnormal weights set to 0" in STAGE.facts(fp32)
    assert dying[1]["int8"].metrics["subnormals"]["weights"] >= 1
    assert STAGE.facts(dying[1]["fp16"])[2:] == []


def test_the_answers_are_those_of_the_network_with_them(dying, small_digits):
    trained, graphs = dying
    inputs = real_inputs(small_digits, 32)
    with torch.no_grad():
        expected = checkpoints.load(trained)(torch.from_numpy(inputs)).numpy()
    with open_reference(graphs["fp32"].graph, as_written=False) as session:
        assert np.abs(session.bind(inputs)() - expected).max() < 1e-5 * np.abs(expected).max()


def test_edgekd_bench_names_them_in_the_file_of_another_exporter(tmp_path):
    weight = np.full((64, 4), TINY)
    graph = model([helper.make_node("MatMul", ["x", "w"], ["y"])], constants={"w": weight}, shape=("batch", 64))
    onnx.save(graph, tmp_path / "m.onnx")
    (found,) = model_file(tmp_path / "m.onnx").subnormal_weights
    assert (found.tensor, found.subnormal) == ("w", 256)
