"""A whole run on a machine that builds engines; TensorRT and the driver are stand-ins, all else is real."""

from __future__ import annotations

import json

import pytest

from edgekd import pipeline
from edgekd.cli._terminal import show_result
from edgekd.errors import BackendError
from edgekd.recipe import load as recipe
from edgekd.runtime.backends import _tensorrt_build

STEPS = {"epochs": 1, "batch_size": 64}
RECIPE = {
    "name": "small",
    "data": {"source": "digits", "image_size": 16, "limit": 128, "augment": {"padding": 1}},
    "teacher": {"model": "cifar/resnet8", "train": STEPS},
    "student": {"model": "cifar/resnet8"},
    "distill": {**STEPS, "baseline": False},
    "bench": {"batch_sizes": [1], "seconds": 0.02, "warmup_seconds": 0.0},
}


def test_engines_are_the_last_stage_and_stand_in_plan_report_and_terminal(device, tmp_path, monkeypatch, capsys):
    loaded = recipe.from_mapping(RECIPE)
    device()

    def broken(*_given: object, **_named: object) -> None:
        raise BackendError("no memory left to build with")

    with monkeypatch.context() as patched:
        patched.setattr(_tensorrt_build, "build", broken)
        with pytest.raises(BackendError, match="no memory left"):
            pipeline.run(loaded, tmp_path)
    # What was finished before it is all there: the report, too.
    assert (tmp_path / "bundle/bundle.json").is_file() and (tmp_path / "report.html").is_file()
    states = {stage.name: stage.state for stage in pipeline.plan(loaded, tmp_path)}
    assert states.pop("engines") == "run" and set(states.values()) == {"reused"}

    result = pipeline.run(loaded, tmp_path)
    assert {stage.state for stage in pipeline.plan(loaded, tmp_path)} == {"reused"}
    record = json.loads((tmp_path / "report.json").read_text())
    rows = {(entry["model"], entry["batch_size"]) for entry in record["measurements"] if "tensorrt" in entry["engine"]}
    assert rows == {("student-fp32", 1), ("student-fp16", 1)}
    assert [stage["name"] for stage in record["stages"]][-1] == "engines"
    assert not any("TensorRT" in entry["what"] for entry in record["not_run"])
    assert "tensorrt 10.3.0" in result.report.read_text()
    show_result(result, as_json=False)
    assert "student-fp16 in tensorrt 10.3.0: p50" in capsys.readouterr().out


def test_a_runs_last_stage_builds_and_measures_what_shipped(device, many_bundle, tmp_path):
    from edgekd.export.bundle import Bundle, BundleDetails
    from edgekd.export.model_id import ModelId
    from edgekd.recipe.settings import BenchSettings
    from edgekd.stages.engines import measure_engines

    device()
    folder = many_bundle("fp32", "fp16", "int8", "int8-asym")
    bundle = Bundle.seal(folder, details=BundleDetails(name="linear", variants=(), engines={}, reasons={}))
    roles = {"fp32": "pruned", "fp16": "pruned", "int8": "quantized", "int8-asym": "quantized"}
    shipped = {variant: ModelId(role, variant) for variant, role in roles.items()}
    (tmp_path / "out").mkdir()
    settings = BenchSettings(batch_sizes=(2,), seconds=0.02, warmup_seconds=0.0)
    found = measure_engines(bundle, shipped, settings, tmp_path / "out")
    rows = {(row["model"], row["batch_size"], row["backend"], row["engine"]) for row in found.records}
    built = ("pruned-fp32", "pruned-fp16", "quantized-int8")
    assert rows == {(model, 2, "tensorrt", "tensorrt 10.3.0") for model in built}
    assert set(found.details.engines["tensorrt"]) == {"fp32", "fp16", "int8"}


def test_the_engines_stage_is_kept_and_made_again_for_another_gpu(device, many_bundle, tmp_path):
    from edgekd.export.bundle import Bundle, BundleDetails
    from edgekd.export.model_id import ModelId
    from edgekd.recipe import load as recipe
    from edgekd.runs import Run
    from edgekd.stages import engines as engines_stage
    from edgekd.store.store import Store

    device()
    bundle = Bundle.seal(many_bundle("fp32"), details=BundleDetails(name="linear", variants=(), engines={}, reasons={}))
    settings = recipe.load("digits", ["bench={batch_sizes: [1], seconds: 0.02, warmup_seconds: 0.0}"]).settings

    def state() -> str:
        store = Store(tmp_path / "run")
        made = engines_stage.engines(Run(settings, store), bundle, {"fp32": ModelId("pruned", "fp32")})
        assert [row["model"] for row in made.records] == ["pruned-fp32"]
        return store.log[-1].state

    assert [state(), state()] == ["run", "reused"]
    device(name="Thor", capability=(11, 0))
    assert state() == "run"
