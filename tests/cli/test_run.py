"""`edgekd run` as a person uses it: the whole chain in a process of its own, then again, changed, broken and cut."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import edgekd
from edgekd import pipeline
from edgekd.cli import group
from edgekd.data.dataset import Dataset
from edgekd.errors import ArtifactError, ModelError
from edgekd.export.legality import VERSIONS
from edgekd.recipe import load as recipe
from edgekd.runtime import load
from edgekd.runtime.bundle import EngineKey
from edgekd.store.artifacts import read_json

RECIPE = {
    "name": "tiny",
    "data": {
        "source": "digits",
        "image_size": 16,
        "limit": 320,
        "validation": 0.1,
        "test": 0.1,
        "augment": {"padding": 1},
    },
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 3, "batch_size": 32, "label_smoothing": 0.1}},
    "student": {"model": "timm/test_efficientnet"},
    "distill": {"objective": [{"method": "kd", "temperature": 4}], "epochs": 2, "batch_size": 32},
    "prune": {"target": {"macs": 0.7}, "epochs": 1, "batch_size": 32},
    "quantize": {"epochs": 2, "batch_size": 32, "calibration_images": 64},
    # Trained this shortly, a network is unsure about most images: a rounding decides.
    "export": {"tolerance": {"int8-asym": {"difference": 0.5, "agreement": 0.5}}},
    "bench": {
        "batch_sizes": [1],
        "seconds": 0.05,
        "warmup_seconds": 0.01,
        "devices": ["this-machine", "jetson-nano-4gb"],
    },
}
SHORTEST = {
    "data": {"source": "digits", "image_size": 16, "limit": 64},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
    "distill": {"epochs": 1, "baseline": False},
    "bench": {"batch_sizes": [1], "seconds": 0.02, "warmup_seconds": 0.0},
}
CHAIN = [
    "data",
    "preflight",
    "teacher",
    "baseline",
    "distill",
    "prune",
    "recover",
    "calibrate",
    "quantize",
    "export-teacher-fp32",
    "export-baseline-fp32",
    "export-student-fp32",
    "export-pruned-fp32",
    "export-pruned-fp16",
    "export-ptq-int8",
    "export-quantized-int8",
    "export-quantized-int8-asym",
    "evaluate",
    "bench",
    "bundle",
]
RUN_HERE = {"fp32", "fp16", "int8-asym"}
MODELS = {stage.removeprefix("export-") for stage in CHAIN if stage.startswith("export-")}


def _edgekd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekd", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def _json(*arguments: str) -> Any:
    """What a command prints with --json, run in this process."""
    shown = CliRunner().invoke(group, [*arguments, "--json"], catch_exceptions=False)
    assert shown.exit_code == 0
    return json.loads(shown.stdout)


def _plan(folder: Path, *overrides: str) -> dict[str, str]:
    planned = pipeline.plan(recipe.load(folder / "tiny.yaml", overrides), folder / "runs/tiny")
    return {stage.name: stage.state for stage in planned}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder with tiny.yaml and its finished run, and what `--json` printed."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    planned = _json("run", str(folder / "tiny.yaml"), "--out", str(folder / "runs/tiny"), "--plan")
    assert [stage["stage"] for stage in planned] == CHAIN
    assert set(_plan(folder).values()) == {"run", "planned"} and not (folder / "runs").exists()
    done = _edgekd(folder, "run", "tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_bundle_verifies_and_states_what_was_measured(finished):
    folder, result = finished
    model = load(folder / result["bundle"])
    rows = {row["model"]: row for row in result["evaluation"]}
    assert set(rows) == MODELS
    shipped = {"fp32": "pruned-fp32", "fp16": "pruned-fp16"}
    shipped |= {variant: f"quantized-{variant}" for variant in ("int8", "int8-asym")}
    for variant, record in model.manifest.variants.items():
        assert record.metrics["accuracy"] == rows[shipped[variant]]["accuracy"]
        assert load(folder / result["bundle"], variant=variant).verify().variant == variant
    measured = {name for name, row in rows.items() if row["variant"] in RUN_HERE}
    assert {(row["model"], row["batch_size"]) for row in result["measurements"]} == {(name, 1) for name in measured}
    assert {(record["provenance"], record["backend"]) for record in result["measurements"]} == {
        ("measured", "onnxruntime")
    }


def test_what_was_measured_decides_what_onnx_runtime_takes(finished):
    folder, result = finished
    manifest = load(folder / result["bundle"]).manifest
    order = manifest.engines[EngineKey.here("onnxruntime")]
    assert load(folder / result["bundle"]).variant == order[0]
    assert set(order) == RUN_HERE and manifest.engines[EngineKey("tensorrt")] == ("int8", "fp16", "fp32")


def test_a_device_that_is_not_at_hand_gets_no_number(finished):
    folder, _ = finished
    record = read_json(folder / "runs/tiny/report.json")
    value = {entry["what"]: entry["why"] for entry in record["not_run"]}
    assert "not this machine" in value["Jetson Nano 4GB"]
    assert "does not support int8" in value["int8 on Jetson Nano 4GB"]
    assert {entry["device"] for entry in record["measurements"]} == {"this-machine"}


def test_every_graph_for_tensorrt_is_legal_there(finished):
    folder, _ = finished
    rows = read_json(folder / "runs/tiny/report.json")["legality"]
    assert {row["model"] for row in rows} == {"pruned-fp32", "pruned-fp16", "quantized-int8"}
    assert all(row["legal"] for row in rows), [row["errors"] for row in rows]
    assert {row["version"] for row in rows} == set(VERSIONS)


def test_the_test_split_is_touched_only_by_the_evaluation(finished):
    folder, _ = finished
    counts = Dataset.load(next((folder / "runs/tiny/stages").glob("data-*"))).details.counts
    rows = read_json(folder / "runs/tiny/report.json")
    assert {model["samples"] for model in rows["models"]} == {counts["test"]}
    assert {entry["images"] for entry in rows["numerics"]} == {min(256, counts["validation"])}


def test_the_report_shows_the_chain_and_the_warning_about_the_teacher(finished):
    folder, result = finished
    page = (folder / result["report"]).read_text()
    assert "label smoothing 0.1" in page
    record = read_json(folder / "runs/tiny/report.json")
    assert [stage["name"] for stage in record["stages"]] == CHAIN
    again = CliRunner().invoke(group, ["report", str(folder / "runs/tiny"), "--out", str(folder / "again.html")])
    assert again.exit_code == 0 and (folder / "again.html").read_text() == page


def test_running_again_does_nothing_and_a_change_runs_from_there(finished):
    folder, _ = finished
    assert _plan(folder) == dict.fromkeys(CHAIN, "reused")
    # A board that nobody measures on changes no latency.
    assert _plan(folder, "bench.devices=[this-machine]") == dict.fromkeys(CHAIN, "reused")
    assert _plan(folder, "report.images=false") == dict.fromkeys(CHAIN, "reused")
    assert _plan(folder, "budget={latency_ms: 1, size_mb: 1}") == dict.fromkeys(CHAIN, "reused")
    # What a variant may lose decides which one is the bundle's default.
    assert _plan(folder, "budget={accuracy_drop: 0.1}") == {**dict.fromkeys(CHAIN, "reused"), "bundle": "run"}
    before = sorted(path.name for path in (folder / "runs/tiny/stages").iterdir())
    result = edgekd.run(folder / "tiny.yaml", folder / "runs/tiny")
    assert sorted(path.name for path in (folder / "runs/tiny/stages").iterdir()) == before
    assert result.bundle == folder / "runs/tiny/bundle"
    changed = _plan(folder, "distill.objective.0.temperature=2")
    assert [name for name, state in changed.items() if state != "reused"] == [
        stage
        for stage in CHAIN
        if stage not in ("data", "teacher", "baseline", "export-teacher-fp32", "export-baseline-fp32")
    ]
    quantized = _plan(folder, "quantize.epochs=3")
    assert [name for name, state in quantized.items() if state != "reused"] == [
        *("preflight", "quantize", "export-quantized-int8", "export-quantized-int8-asym", "evaluate", "bench", "bundle")
    ]
    measured = _plan(folder, "bench.seconds=0.06")
    assert [name for name, state in measured.items() if state != "reused"] == ["bench", "bundle"]


def test_python_verbs_reuse_what_the_command_made(finished):
    folder, _ = finished
    stages = sorted((folder / "runs/tiny/stages").iterdir())
    for verb, stage in {"train": "teacher", "distill": "distill", "prune": "recover", "quantize": "quantize"}.items():
        made = getattr(edgekd, verb)(folder / "tiny.yaml", folder / "runs/tiny")
        assert made.kind == "checkpoint" and made.manifest.stage.name == stage
    place = ("--out", str(folder / "runs/tiny"))
    assert _json("quantize", str(folder / "tiny.yaml"), *place)["digest"] == made.digest
    assert _json("export", str(folder / "tiny.yaml"), *place)["path"] == str(folder / "runs/tiny/bundle")
    assert sorted((folder / "runs/tiny/stages").iterdir()) == stages
    assert edgekd.export_bundle(RECIPE, folder / "runs/tiny") == folder / "runs/tiny/bundle"


def test_a_changed_stage_is_refused_and_nothing_else_is_lost(finished):
    folder, _ = finished
    weights = next((folder / "runs/tiny/stages").glob("baseline-*/weights.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        edgekd.run(folder / "tiny.yaml", folder / "runs/tiny")
    weights.write_bytes(content)
    assert _plan(folder) == dict.fromkeys(CHAIN, "reused")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_control_c_keeps_what_is_finished_and_prints_how_to_resume(finished, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    command = [sys.executable, "-m", "edgekd", "run", "tiny.yaml", "--set", "teacher.train.epochs=500"]
    # A suite that runs as a background job has its children ignore Ctrl-C; a person's shell does not.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listen) as process:
        deadline = time.monotonic() + 120
        while not any((tmp_path / "runs/tiny/partial").glob("teacher-*/artifact.resume/head.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert "edgekd run tiny.yaml --set teacher.train.epochs=500" in shown
    plan = _plan(tmp_path, "teacher.train.epochs=500")
    assert (plan["data"], plan["teacher"]) == ("reused", "run")


def test_a_teacher_for_other_classes_is_refused_before_any_training(finished, tmp_path):
    folder, _ = finished
    teacher = next((folder / "runs/tiny/stages").glob("teacher-*"))
    rows = tmp_path / "two"
    from PIL import Image

    for name, shade in (("dark", 20), ("light", 220)):
        (rows / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (16, 16), (shade + index, shade, shade)).save(rows / name / f"{index}.png")
    recipe = {
        **RECIPE,
        "data": {"source": "image-folder", "root": str(rows), "image_size": 16, "test": 0.2, "validation": 0.2},
        "teacher": {"model": "cifar/resnet8", "checkpoint": str(teacher)},
    }
    with pytest.raises(ModelError, match="10 classes(?s:.)*2, as the data has"):
        edgekd.run(recipe, tmp_path / "run")


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_quantized_checkpoint_is_not_a_beginning(finished, tmp_path, role):
    folder, _ = finished
    (quantized,) = (folder / "runs/tiny/stages").glob("quantize-*")
    value = f"{{model: timm/test_efficientnet, checkpoint: {quantized}}}"
    with pytest.raises(ModelError, match="timm/test_efficientnet is already quantized(?s:.)*the float checkpoint"):
        edgekd.run(RECIPE, tmp_path, [f"{role}={value}"])


def test_a_student_that_learned_nothing_is_not_praised_and_fails_where_asked(tmp_path):
    distill = {"epochs": 1, "learning_rate": 1e-9, "baseline": False}
    nothing = {**SHORTEST, "name": "nothing", "distill": distill, "export": {"variants": ["fp32"]}}
    (tmp_path / "nothing.yaml").write_text(yaml.safe_dump(nothing))
    line = ["run", str(tmp_path / "nothing.yaml"), "--out", str(tmp_path / "out")]
    plain = CliRunner().invoke(group, line)
    assert plain.exit_code == 0, plain.output
    assert "distill trains a new network for 8 steps only: 1 epoch of 64 images in batches of 8" in plain.stderr
    (named,) = [line for line in plain.stderr.splitlines() if line.startswith("    ! ") and "student-fp32" in line]
    assert "every image" in named or "always answering" in named
    strict = CliRunner().invoke(group, [*line, "--strict"])
    assert strict.exit_code == 3 and "edgekd: --strict: not usable: " in strict.stderr
    # Whatever the bounds: a file that learned nothing is worth nothing.
    budget = CliRunner().invoke(group, [*line, "--set", "budget.size_mb=100"])
    assert budget.exit_code == 3 and "student-fp32 is not usable: " in budget.stderr
    bundle = read_json(tmp_path / "out" / "bundle" / "bundle.json")
    assert bundle["warnings"] and bundle["variants"]["fp32"]["metrics"]["problems"]
    assert "correct" not in bundle["variants"]["fp32"]["metrics"]
    assert "**Not usable:**" in (tmp_path / "out" / "bundle" / "card.md").read_text()
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<h1>Not usable: " in report and "faster" not in report.partition("</h1>")[0]
    plan = CliRunner().invoke(group, [*line, "--plan"])
    assert plan.exit_code == 0 and "for 8 steps only" in plan.stderr


def test_a_variant_that_fails_is_left_out_and_the_run_goes_on(tmp_path):
    never = {"variants": ["fp32", "fp16"], "tolerance": {"fp16": {"difference": 1e-9, "agreement": 1.0}}}
    recipe = {**SHORTEST, "name": "partly", "export": never}
    (tmp_path / "partly.yaml").write_text(yaml.safe_dump(recipe))
    shown = CliRunner().invoke(group, ["run", str(tmp_path / "partly.yaml"), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "student-fp16 was left out: " in shown.stderr
    model = load(tmp_path / "out" / "bundle")
    assert list(model.manifest.variants) == ["fp32"] and model.verify().images
    report = read_json(tmp_path / "out" / "report.json")
    assert report["command"] == f"edgekd run {tmp_path}/partly.yaml --out {tmp_path}/out"
    assert [each["id"] for each in report["models"]] == ["teacher-fp32", "student-fp32"]
    assert any(warning.startswith("student-fp16 was left out") for warning in report["warnings"])
    assert "<h1>" in (page := (tmp_path / "out" / "report.html").read_text())
    assert "fp16 was left out" in page.partition("<h1>")[2].partition("</h1>")[0]
    line = ["run", str(tmp_path / "partly.yaml"), "--out", str(tmp_path / "out"), "--strict"]
    strict = CliRunner().invoke(group, line)
    assert strict.exit_code == 3 and "edgekd: --strict: student-fp16 was left out: the graph" in strict.stderr
