"""Export → load in the real runtime → the same answers."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from edgekd.errors import ExportError
from edgekd.export import onnx as exports
from edgekd.export.bundle import Contents, pack, publish
from edgekd.export.model_id import ModelId
from edgekd.export.numerics import Expected, compare, real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import BenchSettings, ExportSettings, Tolerance
from edgekd.runtime import load
from edgekd.runtime.backends import open_session
from edgekd.stages.benchmark import measure_models
from edgekd.stages.evaluate import evaluate_models, wilson
from edgekd.training.train import evaluation_loader


@pytest.fixture(scope="module")
def exported(small_digits, tmp_path_factory):
    """A checkpoint with its fp32 and fp16 graphs; untrained, but with statistics of its own."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(3)
    architecture = Architecture(
        model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.25}, num_classes=10, small_stem=True
    )
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    for name in ("checkpoint", "fp32", "fp16"):
        (folder / name).mkdir()
    student = checkpoints.save(
        network,
        architecture,
        preprocessing=small_digits.details.preprocessing,
        classes=small_digits.classes,
        out=folder / "checkpoint",
    )
    settings = ExportSettings()
    fp32 = find("fp32").convert(student, small_digits, settings, folder / "fp32")
    return student, {"fp32": fp32, "fp16": find("fp16").convert(fp32, small_digits, settings, folder / "fp16")}


def test_the_graph_answers_as_the_network_does_at_any_batch_size(exported, small_digits):
    student, models = exported
    network = checkpoints.load(student)
    session = open_session(models["fp32"].graph)
    inputs = real_inputs(small_digits)
    for size in (1, 3, 100):
        with torch.no_grad():
            expected = network(torch.from_numpy(inputs[:size])).numpy()
        np.testing.assert_allclose(session.bind(inputs[:size])(), expected, atol=1e-4)


def test_the_graph_is_what_it_says(exported):
    _, models = exported
    for precision, model in models.items():
        graph = onnx.load(model.graph)
        onnx.checker.check_model(graph, full_check=True)
        assert graph.opset_import[0].version == 17 == model.details.opset
        dims = graph.graph.input[0].type.tensor_type.shape.dim
        assert dims[0].dim_param and [d.dim_value for d in dims[1:]] == [3, 16, 16]
        kinds = {weight.data_type for weight in graph.graph.initializer if len(weight.dims) == 4}
        assert kinds == {onnx.TensorProto.FLOAT if precision == "fp32" else onnx.TensorProto.FLOAT16}


def test_no_path_of_the_exporting_machine_ships(exported):
    for model in exported[1].values():
        assert b"site-packages" not in model.graph.read_bytes()


def test_fp16_halves_the_file_and_reports_its_numerics(exported):
    _, models = exported
    assert models["fp16"].size_bytes < 0.65 * models["fp32"].size_bytes
    report = models["fp16"].metrics["numerics"]
    assert 0 < report["max_difference"] <= report["tolerance"]["difference"]
    assert report["agreement"] >= report["tolerance"]["agreement"]


def test_a_graph_that_computes_something_else_fails_the_stage(exported, small_digits):
    _, models = exported
    inputs = real_inputs(small_digits)
    expected = open_session(models["fp32"].graph).bind(inputs)()
    strict = Tolerance(difference=1e-3, agreement=0.99)
    with pytest.raises(ExportError, match=r"does not compute what X computes(?s:.)*at most 1e-03"):
        compare(models["fp32"].graph, Expected(inputs, expected * 1.01, "X"), strict)
    with pytest.raises(ExportError, match="agreement 0"):
        compare(models["fp32"].graph, Expected(inputs, -expected, "X"), Tolerance(difference=9.0, agreement=0.5))


def test_an_answer_agrees_where_every_heads_does(exported, small_digits):
    file = exported[1]["fp32"].graph
    inputs = real_inputs(small_digits)
    found = open_session(file).bind(inputs)()
    # The last two logits swapped: where these are no network's top answer, only a head of their own tells.
    swapped = found[:, [0, 1, 2, 3, 4, 5, 6, 7, 9, 8]]
    loose = Tolerance(difference=9.0, agreement=0.01)
    with pytest.raises(ExportError, match="agreement 0"):
        compare(file, Expected(inputs, swapped, "X"), loose, heads=[2])
    report = compare(file, Expected(inputs, swapped, "X"), loose, heads=[3, 1, 1])
    assert report["agreement"] == 1.0


def test_evaluation_counts_by_hand(exported, small_digits, tmp_path):
    student, models = exported
    network = checkpoints.load(student)
    evaluation = evaluate_models({ModelId("student", "fp32"): models["fp32"]}, small_digits, tmp_path)
    (row,) = evaluation.rows
    with torch.no_grad():
        batches = evaluation_loader(small_digits, "test").epoch(0)
        right = sum(int((network(batch.images).argmax(1) == batch.targets).sum()) for batch in batches)
    assert row["samples"] == small_digits.details.counts["test"]
    assert row["accuracy"] == pytest.approx(right / row["samples"])
    assert row["interval"][0] < row["accuracy"] < row["interval"][1] or right == 0


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_bundle_loads_verifies_and_carries_its_metrics(exported, small_digits, tmp_path):
    student, models = exported
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "packed").mkdir()
    named = {ModelId("student", variant): model for variant, model in models.items()}
    evaluation = evaluate_models(named, small_digits, tmp_path / "evaluation")
    (tmp_path / "measured").mkdir()
    measurements = measure_models(named, BenchSettings(batch_sizes=(1,), seconds=0.05), tmp_path / "measured")
    contents = Contents("digits", {variant: ModelId("student", variant) for variant in models}, named, student)
    bundle = pack(contents, evaluation.rows, measurements.records, small_digits, tmp_path / "packed")
    publish(bundle, tmp_path / "bundle")
    publish(bundle, tmp_path / "bundle")
    for variant in models:
        model = load(tmp_path / "bundle", variant=variant)
        assert model.verify().images == 8
        assert model.classes == student.classes
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert manifest["variants"]["fp32"]["metrics"]["accuracy"] == evaluation.rows[0]["accuracy"]
    assert manifest["variants"]["fp32"]["latency"]["provenance"] == "measured"
    assert not (tmp_path / "bundle" / "manifest.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "evaluation", "measured", "packed"]
    images = np.load(tmp_path / "bundle" / "vectors" / "images.npy")
    logits = np.load(tmp_path / "bundle" / "vectors" / "logits.fp32.npy")
    answers = [digit.label for digit in load(tmp_path / "bundle", variant="fp32")(images)]
    assert answers == [student.classes[i] for i in logits.argmax(1)]


def test_a_network_that_cannot_be_exported_is_one_clear_message():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x[:, 0] if x.sum() > 0 else x[:, 1]

    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        exports.graph_of(Odd().eval(), 16, 20)
