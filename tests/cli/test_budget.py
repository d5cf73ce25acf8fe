"""A recipe's budget on the command line: a tiny run, which is then judged again and again without running anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from edgekd import api, pipeline
from edgekd.cli import group
from edgekd.recipe import load as recipe
from edgekd.runtime import load
from edgekd.store.artifacts import read_json

RECIPE = {
    "name": "tiny",
    "data": {"source": "digits", "image_size": 16, "limit": 320, "test": 0.2, "augment": {"crop": "none"}},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 4, "batch_size": 16, "learning_rate": 0.05}},
    "student": {"model": "cifar/resnet8"},
    "distill": {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "baseline": False},
    "export": {"variants": ["fp32"]},
    "bench": {"batch_sizes": [1], "seconds": 0.02, "warmup_seconds": 0.0},
    "budget": {"latency_ms": 10_000, "accuracy_drop": 0.9, "size_mb": 10},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With tiny.yaml and its finished run, which met its budget."""
    folder = tmp_path_factory.mktemp("budget")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    result = api.run(folder / "tiny.yaml", folder / "out")
    assert result.budget is not None and result.budget.met, result.budget
    return folder


def _run(folder: Path, *arguments: str) -> Result:
    line = ["run", str(folder / "tiny.yaml"), "--out", str(folder / "out"), *arguments]
    return CliRunner().invoke(group, line, catch_exceptions=False)


def test_a_budget_that_is_met_is_stated_with_every_bound(folder: Path) -> None:
    shown = _run(folder)
    assert shown.exit_code == 0 and "Budget met by student-fp32 in onnxruntime" in shown.stdout
    limits = {"latency_ms": "10000 ms", "accuracy_drop": "90 points below teacher-fp32", "size_mb": "10 MB"}
    for name, limit in limits.items():
        (row,) = [line for line in shown.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert f"at most {limit}" in row and "  met" in row
    assert "budget" not in shown.stderr


def test_a_missed_one_exits_with_3_and_costs_nothing_that_is_finished(folder: Path) -> None:
    stages = sorted((folder / "out/stages").iterdir())
    shown = _run(folder, "--set", "budget.size_mb=0.001")
    assert shown.exit_code == 3
    size = (folder / "out/bundle/model.fp32.onnx").stat().st_size / 1e6
    message = shown.stderr.partition("edgekd: budget missed by student-fp32")[2].splitlines()
    assert message[1].startswith("  size_mb: ") and "above 0.001 MB" in message[1]
    assert "latency_ms" not in shown.stderr
    report = read_json(folder / "out/report.json")
    assert not report["budget"]["met"] and report["budget"]["bounds"][-1]["value"] == pytest.approx(size)
    assert "Budget missed by" in (folder / "out/report.html").read_text()
    assert load(folder / "out/bundle").verify().images
    assert sorted((folder / "out/stages").iterdir()) == stages


def test_json_has_the_verdict_and_the_same_exit_code(folder: Path) -> None:
    shown = _run(folder, "--json", "--set", "budget={accuracy_drop: 0.0, latency_ms: 1e-6}")
    verdict = json.loads(shown.stdout)["budget"]
    assert shown.exit_code == 3 and not verdict["met"] and verdict["model"] == "student-fp32"
    latency, drop = verdict["bounds"]
    assert not latency["met"] and latency["value"] > 1e-6 and latency["limit"] == 1e-6
    accuracies = {row["role"]: row["accuracy"] for row in json.loads(shown.stdout)["evaluation"]}
    assert drop["value"] == pytest.approx(accuracies["teacher"] - accuracies["student"])
    assert drop["interval"][0] <= drop["value"] <= drop["interval"][1] and drop["against"] == "teacher-fp32"
    assert json.loads(_run(folder, "--json", "--set", "budget=null").stdout)["budget"] is None


def test_a_plan_states_what_will_be_judged_and_refuses_what_cannot_be(folder: Path) -> None:
    shown = _run(folder, "--plan")
    assert shown.exit_code == 0
    assert "accuracy_drop: loss of test accuracy against the teacher, at most 90 points" in shown.stdout
    rows = json.loads(_run(folder, "--plan", "--json").stdout)
    assert [row["why"].partition(":")[0] for row in rows if row["stage"] == "budget"] == [
        *("variant", *RECIPE["budget"])
    ]
    refused = CliRunner().invoke(
        group, ["run", str(folder / "tiny.yaml"), "--plan", "--set", "bench.batch_sizes=[8]"], standalone_mode=False
    )
    assert "tiny.yaml:8 budget.latency_ms: is that of one image" in str(refused.exception)
    assert refused.exception is not None and refused.exception.exit_code == 2


def test_a_run_up_to_a_stage_states_that_it_judges_nothing(folder: Path) -> None:
    shown = _run(folder, "--until", "bundle", "--set", "budget.size_mb=0.001")
    assert shown.exit_code == 0 and "The budget was not judged" in shown.stderr


def test_another_budget_changes_no_stage(folder: Path) -> None:
    for change in ("budget=null", "budget={size_mb: 1}"):
        planned = pipeline.plan(recipe.load(folder / "tiny.yaml", [change]), folder / "out")
        assert {stage.state for stage in planned} == {"reused"}
