"""From real artifacts of a small chain to the record."""

from __future__ import annotations

import base64
import platform
from dataclasses import replace

import pytest

from edgekd.export.bundle import Contents, pack
from edgekd.export.model_id import ModelId
from edgekd.recipe.load import Recipe, from_mapping
from edgekd.recipe.settings import BenchSettings
from edgekd.report.collect import collect, not_run
from edgekd.report.html import render
from edgekd.report.record import parse
from edgekd.report.result import Result
from edgekd.stages.benchmark import measure_models
from edgekd.stages.distill import STUDENT
from edgekd.stages.evaluate import evaluate_models
from edgekd.stages.export import Exported
from edgekd.store.store import Done

RECIPE = {
    "name": "digits-small",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
}


@pytest.fixture(scope="module")
def result(exported, small_digits, tmp_path_factory) -> Result:
    student, graphs = exported
    place = tmp_path_factory.mktemp("collected")
    for name in ("evaluation", "measured", "bundle"):
        (place / name).mkdir()
    models = {ModelId("student", variant): graph for variant, graph in graphs.items()}
    shipped = {variant: ModelId("student", variant) for variant in graphs}
    scores = evaluate_models(models, small_digits, place / "evaluation")
    settings = BenchSettings(batch_sizes=(1,), seconds=0.02, warmup_seconds=0.0)
    measured = measure_models(models, settings, place / "measured", shipped=shipped)
    contents = Contents("digits-small", shipped, models, student)
    bundle = pack(contents, scores.rows, measured.records, small_digits, place / "bundle", turns=measured.turns)
    exports = Exported(models, shipped)
    return Result(small_digits, {STUDENT: student}, student, exports, scores, measured, bundle, warnings=("Twice.",))


@pytest.fixture
def collected(result, tmp_path):
    recipe = Recipe(from_mapping(RECIPE).settings, "name: digits-small", "edgekd run digits.yaml")
    return collect(recipe, result, [Done("data", "Data", "run", result.data, 1.5, ("256 images",))], tmp_path)


def test_the_record_is_valid_and_can_be_rendered(collected):
    assert parse(collected).title == "digits-small"
    page = render(collected)
    assert "digits-small" in page and "edgekd run digits.yaml" in page


def test_an_order_that_was_measured_has_its_latencies_and_its_reason(collected, result):
    (turns,) = result.measured.turns
    orders = {(each["engine"], each["machine"]): each for each in collected["engines"]}
    here = orders["onnxruntime", platform.machine()]
    assert here["turns"] == turns.model_dump(mode="json") and "15 rounds in turns" in here["reason"]
    assert orders["onnxruntime", None]["turns"] is None
    assert collected["environment"]["instruction_sets"] == ", ".join(turns.instruction_sets)


def test_each_model_is_described_by_its_artifacts(collected, result):
    models = {row["id"]: row for row in collected["models"]}
    assert list(models) == ["student-fp32", "student-fp16"]
    for row, score in zip(models.values(), result.scores.rows, strict=True):
        graph = result.exported.models[ModelId("student", row["variant"])].graph
        assert row["size_bytes"] == graph.stat().st_size and row["accuracy"] == score["accuracy"]
        assert row["architecture"] == "cifar/resnet8" and row["ships"]
        assert row["parameters"] == result.final.metrics["parameters"]
    mark = {name: getattr(STUDENT, name) for name in ("legend", "shape", "colour", "part")}
    assert collected["roles"] == {"student": mark}


def test_the_images_of_mistakes_are_in_the_record_unless_the_recipe_leaves_them_out(result, collected, tmp_path):
    (row, _), (model, _) = result.scores.rows, collected["models"]
    assert model["calibration"] == row["calibration"]
    assert [each["name"] for each in model["worst"]] == [each["name"] for each in row["worst"]]
    first = row["worst"][0]
    content = (result.scores.path / first["image"]).read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    assert collected["images"][first["row"]] == uri and uri in render(collected)
    shown = {each["row"] for score in result.scores.rows for each in score["worst"]}
    assert collected["images"].keys() == shown
    settings = from_mapping({**RECIPE, "report": {"images": False}}).settings
    without = collect(Recipe(settings, "", ""), result, [], tmp_path)
    assert without["images"] == {} and without["models"][0]["worst"] == model["worst"]
    page = render(without)
    assert "<img" not in page and first["name"] in page


def test_stages_measurements_and_files_are_listed(collected, result, tmp_path):
    assert collected["stages"] == [
        {"name": "data", "title": "Data", "state": "run", "seconds": 1.5, "facts": ["256 images"]}
    ]
    assert [row["model"] for row in collected["measurements"]] == ["student-fp32", "student-fp16"]
    assert collected["bundle"]["path"] == str(tmp_path)
    listed = {row["name"]: row["size_bytes"] for row in collected["bundle"]["files"]}
    assert listed == {name: record.size_bytes for name, record in result.bundle.manifest.files.items()}


def test_each_shipped_graph_is_checked_for_each_version_of_tensorrt(collected):
    checked = [(row["model"], row["version"]) for row in collected["legality"]]
    assert len(set(checked)) == len(checked) >= 10
    assert {model for model, _ in checked} == {"student-fp32", "student-fp16"}


def test_a_warning_is_shown_once(collected, result, tmp_path):
    # The network is not trained, which the evaluation notices.
    untrained, busy = result.scores.metrics["warnings"], result.measured.metrics["warnings"]
    assert len(untrained) == 1 and collected["warnings"] == ["Twice.", *untrained, *busy]
    repeated = replace(result, warnings=("Twice.", "Another.", "Twice."))
    recipe = Recipe(from_mapping(RECIPE).settings, "", "")
    assert collect(recipe, repeated, [], tmp_path)["warnings"] == ["Twice.", "Another.", *untrained, *busy]


def test_stages_that_did_not_run_leave_no_section(collected):
    assert collected["pruning"] is None and collected["quantization"] is None and collected["training"] == []


def test_a_device_that_is_elsewhere_is_listed_with_what_it_cannot_run():
    rows = not_run(("this-machine", "jetson-nano-4gb"), ("fp32", "int8"))
    found = [row for row in rows if "Jetson Nano" in row["what"]]
    assert [row["what"].startswith("int8 on ") for row in found] == [False, True]
    assert "copy the bundle there" in found[0]["why"] and "does not support int8" in found[1]["why"]
