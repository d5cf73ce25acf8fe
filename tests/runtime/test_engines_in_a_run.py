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


def test_engines_are_the_last_link_and_stand_in_plan_report_and_terminal(device, tmp_path, monkeypatch, capsys):
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
