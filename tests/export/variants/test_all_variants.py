"""What every export variant keeps to, and that one more of them is one object."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import onnx
import pytest
import torch
from onnx import TensorProto
from samples import added_plugin

from edgekd import pipeline, plugins
from edgekd.errors import ExportError, RecipeError
from edgekd.export import variants
from edgekd.export.numerics import real_inputs
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe import load as recipe
from edgekd.recipe.schema import json_schema
from edgekd.recipe.settings import ExportSettings, Tolerance, default_variants
from edgekd.runtime.backends import all_backends, open_reference
from edgekd.stages.quantize import calibrate

NAMES = plugins.names("variant")
TYPES = {"float16": TensorProto.FLOAT16, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}


@pytest.fixture(scope="module")
def made(small_digits, tmp_path_factory):
    """A small network's graph in every variant, each converted from what its variant names; by variant."""
    place = tmp_path_factory.mktemp("variants")
    for folder in ("float", "quantized", *NAMES):
        (place / folder).mkdir()
    torch.manual_seed(1)
    architecture = Architecture(model="cifar/resnet8", num_classes=10)
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    facts = {"preprocessing": small_digits.details.preprocessing, "classes": small_digits.classes}
    trained = checkpoints.save(network, architecture, out=place / "float", **facts)
    sources = {"float": trained, "quantized": calibrate(trained, small_digits, 64, place / "quantized")}
    graphs = {}
    for variant in variants.ordered(NAMES):
        source = graphs[variant.base] if variant.base is not None else sources[variant.checkpoint]
        graphs[variant.name] = variant.export(source, small_digits, ExportSettings(), place / variant.name)
    return sources, graphs


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_declares_what_others_need(name):
    variant = variants.find(name)
    assert variant.name == name and variant.title and variant.note
    assert 0 < variant.tolerance.difference and 0 < variant.tolerance.agreement <= 1
    if variant.base is not None:
        assert variants.find(variant.base).checkpoint == variant.checkpoint
    assert any(
        variant.activations in backend.activations(machine) for backend in all_backends() for machine in MACHINES
    )


MACHINES = ("x86_64", "aarch64")


def test_declaring_them_imports_no_heavy_package():
    code = "import sys; from edgekd import plugins; [plugins.load('variant', n) for n in plugins.names('variant')];"
    code += "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_its_graph_is_what_it_declares(made, name):
    variant, model = variants.find(name), made[1][name]
    assert model.precision == variant.precision
    assert model.metrics["numerics"]["tolerance"] == variant.tolerance.model_dump()
    graph = onnx.load(model.graph).graph
    assert {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)} == {TensorProto.FLOAT}
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    makers = {output for node in graph.node for output in node.output}
    if variant.precision == "int8":
        quantized = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in makers]
        assert quantized and {constants[node.input[2]] for node in quantized} == {TYPES[variant.activations]}
    else:
        weights = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
        assert weights == {TYPES.get(variant.activations, TensorProto.FLOAT)}


@pytest.mark.parametrize("name", NAMES)
def test_what_it_computes_is_within_its_tolerance(made, name, small_digits):
    variant, inputs = variants.find(name), real_inputs(small_digits, 8)
    with torch.no_grad():
        expected = checkpoints.load(made[0][variant.checkpoint])(torch.from_numpy(inputs)).numpy()
    with open_reference(made[1][name].graph, as_written=variant.as_written) as session:
        difference = abs(session.bind(inputs)() - expected).max() / abs(expected).max()
    assert difference <= variant.tolerance.difference


@pytest.mark.parametrize("name", NAMES)
def test_a_tolerance_that_nothing_meets_fails_the_conversion(made, name, small_digits, tmp_path):
    variant = variants.find(name)
    source = made[1][variant.base] if variant.base is not None else made[0][variant.checkpoint]
    settings = ExportSettings(tolerance={name: Tolerance(difference=1e-12, agreement=1.0)})
    with pytest.raises(ExportError, match="does not compute what"):
        variant.export(source, small_digits, settings, tmp_path)


RECIPE = {
    "name": "small",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
}


def test_one_more_variant_is_accepted_planned_and_listed(monkeypatch, tmp_path):
    known = variants.find("fp16")
    file = tmp_path / "plugins" / "variants" / "fp16_again.py"
    file.parent.mkdir(parents=True)
    file.write_text("from edgekd.export.variants.fp16 import VARIANT\n")
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "plugins"))
    assert default_variants() == ("fp32", "fp16", "fp16-again")
    loaded = recipe.from_mapping({**RECIPE, "export": {"variants": ["fp32", "fp16-again"]}})
    assert loaded.settings.export.tolerance_of("fp16-again") == known.tolerance
    planned = [stage.name for stage in pipeline.plan(loaded, tmp_path / "run")]
    assert "export-student-fp16-again" in planned and "export-student-fp16" not in planned
    assert "export-teacher-fp16-again" not in planned
    options = json_schema()["$defs"]["ExportSettings"]["properties"]["variants"]["anyOf"]
    assert "fp16-again" in options[0]["items"]["enum"]


def test_a_variant_that_is_not_a_default_is_made_where_it_is_named(monkeypatch):
    rare = plugins.named(replace(variants.find("fp16"), by_default=False), "rare")
    added_plugin(monkeypatch, "variant", rare)
    assert "rare" not in default_variants(quantized=True)
    with pytest.raises(RecipeError, match="fp32 must be among the variants: rare is derived from it"):
        recipe.from_mapping({**RECIPE, "export": {"variants": ["rare"]}})
