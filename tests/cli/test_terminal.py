from __future__ import annotations

import io
import json
import logging
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from edgekd.cli._progress import Line
from edgekd.cli._terminal import Terminal, print_hanging, show_artifact, show_plan, show_result
from edgekd.cli._time_left import TimeLeft
from edgekd.export.model_id import ModelId
from edgekd.store.plan import PlannedStage
from edgekd.store.store import Done


def test_each_stage_is_one_line_and_a_warning_is_shown_once(capsys):
    warned = SimpleNamespace(metrics={"warnings": ["too soft"]})
    with Terminal(quiet=False) as terminal:
        terminal.begin("distill")
        terminal.warn("too soft")
        terminal.end(Done("distill", "Student", "run", warned, 1.5, ("validation 97.00%", "[1, 2]")))
        terminal.end(Done("data", "Data", "reused", SimpleNamespace(metrics={}), 9.0))
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert lines == ["… distill", "! too soft", "✓ distill 1.5 s validation 97.00%, [1, 2]", "= data reused"]


def test_a_logged_warning_is_shown_as_long_as_the_terminal_is_open(capsys):
    log = logging.getLogger("edgekd.training.throughput")
    with Terminal(quiet=False):
        log.warning("the machine is busy: %d of its cores", 2)
        log.info("training in batches of 8")
        log.debug("not shown")
    log.info("nor this")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == ["! the machine is busy: 2 of its cores", "· training in batches of 8"]
    assert not logging.getLogger("edgekd").handlers


def test_a_plan_is_a_table_or_json(capsys):
    stages = [PlannedStage("data", "Data", "reused", "same"), PlannedStage("distill", "Student", "planned", "waits")]
    show_plan(stages, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["stage", "plan", "why"],
        ["data", "reuse", "same"],
        ["distill", "run", "waits"],
    ]
    show_plan(stages, as_json=True)
    assert json.loads(capsys.readouterr().out)[1] == {"stage": "distill", "state": "planned", "why": "waits"}


def test_the_result_fits_into_80_columns_with_every_name_whole(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    graph = tmp_path / "model.onnx"
    graph.write_bytes(bytes(12_340_000))
    name = ModelId("quantized", "int8-asym")
    row = {"model": str(name), "role": "quantized", "variant": "int8-asym", "accuracy": 0.98765}
    latency = {"latency_ms": {"p50": 123.4567, "p99": 234.5678}, "provenance": "measured"}
    record = {**row, "batch_size": 1, "backend": "onnxruntime", **latency}
    made = SimpleNamespace(
        measured=SimpleNamespace(records=[record]),
        engines=None,
        data=SimpleNamespace(measure="accuracy"),
        scores=SimpleNamespace(rows=[{**row, "interval": [0.974, 1.0]}]),
        exported=SimpleNamespace(models={name: SimpleNamespace(graph=graph)}),
    )
    reasons = {"ONNX Runtime on x86_64": "int8-asym wins: 1.9× faster"}
    result = SimpleNamespace(made=made, report="r", bundle="b", budget=None, decisions=reasons)
    show_result(result, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "Default ONNX Runtime on x86_64: int8-asym wins: 1.9× faster." in lines
    assert lines[2].split() == [
        *("quantized-int8-asym", "98.77%", "97.4%", "to", "100.0%"),
        *("12.3", "MB", "123.457", "ms", "234.568", "ms"),
    ]
    assert max(map(len, lines[:3])) <= 80


def test_a_bundle_is_shown_where_it_was_published(capsys, tmp_path):
    made = SimpleNamespace(kind="bundle", path=tmp_path / "stages/bundle-1", digest="d", metrics={"a": 1})
    show_artifact(made, tmp_path, as_json=False)
    assert capsys.readouterr().out == f"\nBundle  {tmp_path / 'bundle'}\n"
    show_artifact(SimpleNamespace(**{**vars(made), "kind": "checkpoint"}), tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "stages/bundle-1")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_in_a_terminal_the_line_fits(monkeypatch, width):
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    bars = Progress(Line(console, TimeLeft()), console=console)
    bars.add_task(
        "export-quantized-int8-asym", total=9, completed=3, note="student-int8-asym, ONNX Runtime 1.23 as written"
    )
    console.print(bars)
    shown = screen.getvalue().rstrip("\n")
    assert "\n" not in shown and len(shown) < width and "export-quantized-int8-asym" in shown and "33%" in shown
    assert ("━" in shown) == (width == 120)


def test_a_stage_without_progress_shows_that_it_is_running(capsys):
    with Terminal(quiet=False, every=0.02) as terminal:
        terminal.begin("export-student-fp32")
        shown, end = "", time.monotonic() + 30.0
        while "running for" not in shown and time.monotonic() < end:
            shown += capsys.readouterr().err
            time.sleep(0.01)
    assert "    export-student-fp32: running for 0 s" in shown


def test_a_stage_goes_on_after_one_within_it(capsys):
    with Terminal(quiet=False, every=0.0) as terminal:
        terminal.begin("distill")
        terminal.begin("teacher-outputs")
        terminal.end(Done("teacher-outputs", "Outputs", "run", SimpleNamespace(metrics={}), 1.0))
        terminal.progress("distill", 1, 10, "epoch 1/2")
    assert capsys.readouterr().err.splitlines()[-1] == "    distill: epoch 1/2, 1 of 10"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys):
    for every, shown in ((0.0, True), (60.0, False)):
        with Terminal(quiet=False, every=every) as terminal:
            terminal.begin("distill")
            terminal.progress("distill", 12, 1400, "epoch 1/14")
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "  … distill" and ("    distill: epoch 1/14, 12 of 1,400" in lines) == shown
    with Terminal(quiet=True, every=0.0) as terminal:
        terminal.progress("distill", 12, 1400, "epoch 1/14")
    assert capsys.readouterr().err == ""


def printed(width: int, *, terminal: bool) -> list[str]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=width, color_system=None)
    lead = Text.assemble("  ", ("✓", "green"), " evaluate   1.0 s   ")
    print_hanging(console, lead, "8 files, 36 test images, /a/path/that/is/longer/than/the/whole/column [1, 2]")
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def test_a_long_text_hangs_behind_its_lead_in_a_terminal_and_is_one_line_in_a_file():
    assert printed(60, terminal=True) == [
        "  ✓ evaluate   1.0 s   8 files, 36 test images,",
        "                       /a/path/that/is/longer/than/the/whole",
        "                       /column [1, 2]",
    ]
    (line,) = printed(60, terminal=False)
    assert line.endswith("/the/whole/column [1, 2]")
    assert len(printed(40, terminal=True)) == 1, "left to the terminal where there is no room"
