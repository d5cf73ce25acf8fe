from __future__ import annotations

import json
from types import SimpleNamespace

from edgekd.cli._terminal import Terminal, show_artifact, show_plan
from edgekd.store.plan import PlannedStage
from edgekd.store.store import Done


def test_each_stage_is_one_line_and_a_warning_is_shown_once(capsys):
    warned = SimpleNamespace(metrics={"warnings": ["too soft"]})
    with Terminal(quiet=False, resume="edgekd run x") as terminal:
        terminal.begin("distill")
        terminal.warn("too soft")
        terminal.end(Done("distill", "Student", "run", warned, 1.5, ("validation 97.00%", "[1, 2]")))
        terminal.end(Done("data", "Data", "reused", SimpleNamespace(metrics={}), 9.0))
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert lines == ["… distill", "! too soft", "✓ distill 1.5 s validation 97.00%, [1, 2]", "= data reused"]


def test_an_interruption_states_how_to_resume_and_quiet_prints_nothing(capsys):
    for quiet in (False, True):
        try:
            with Terminal(quiet=quiet, resume="edgekd run x"):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    assert capsys.readouterr().err.count("edgekd run x") == 1


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


def test_a_bundle_is_shown_where_it_was_published(capsys, tmp_path):
    made = SimpleNamespace(kind="bundle", path=tmp_path / "stages/bundle-1", digest="d", metrics={"a": 1})
    show_artifact(made, tmp_path, as_json=False)
    assert capsys.readouterr().out == f"\nBundle  {tmp_path / 'bundle'}\n"
    show_artifact(SimpleNamespace(**{**vars(made), "kind": "checkpoint"}), tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "stages/bundle-1")
