from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd.data.dataset import Dataset
from edgekd.errors import BackendError, ExportError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import from_mapping
from edgekd.runs import Run, Stage
from edgekd.stages.distill import STUDENT
from edgekd.stages.export import STAGE as EXPORT
from edgekd.stages.export import export
from edgekd.stages.quantize import Quantized
from edgekd.stages.train import TEACHER
from edgekd.store.plan import Outline

RECIPE = {
    "name": "x",
    "data": {"source": "digits"},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
    "quantize": {},
}


class Failing(Outline):
    """A store in which the graphs of these names are not what they were converted from."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = {f"export-{name}" for name in names}

    def stage(self, kind, label, **arguments):
        if label.name in self.names:
            raise ExportError("the graph does not compute what X computes", found="agreement 80%")
        return super().stage(kind, label, **arguments)


def exported(*overrides, trained=True, store=None, console=None):
    """What is exported of networks that are not made yet."""
    run = Run(from_mapping(RECIPE, overrides).settings, store or Outline(), console)

    def made(kind):
        return run.stage(Stage("x", "X", version=1), kind, settings={}, inputs={}, make=kind)

    networks = {TEACHER: made(Checkpoint), STUDENT: made(Checkpoint)}
    calibrated = made(Checkpoint)
    return export(run, networks, Quantized(calibrated, made(Checkpoint) if trained else calibrated), made(Dataset))


class Making(Outline):
    """A store in which every stage is made, in a folder that is not there."""

    def stage(self, kind, label, **arguments):
        if label.name.startswith("export-"):
            with suppress(Exception):
                arguments["make"](Path("/nowhere"))
        return super().stage(kind, label, **arguments)


def test_progress_counts_the_graphs():
    shown = []
    console = SimpleNamespace(progress=lambda *each: shown.append(each), warn=lambda message: None)
    exported(store=Making(), console=console)
    assert shown[0] == ("export-teacher-fp32", 0, 6, "graph 1 of 6")
    assert shown[-1] == ("export-quantized-int8-asym", 5, 6, "graph 6 of 6") and len(shown) == 6


def test_every_network_in_its_own_form_and_what_ships_in_all():
    made = exported()
    assert list(map(str, made.models)) == [
        *("teacher-fp32", "student-fp32", "student-fp16", "ptq-int8", "quantized-int8", "quantized-int8-asym")
    ]
    assert {variant: str(model) for variant, model in made.shipped.items()} == {
        "fp32": "student-fp32",
        "fp16": "student-fp16",
        "int8": "quantized-int8",
        "int8-asym": "quantized-int8-asym",
    }


def test_a_network_that_is_only_calibrated_is_not_compared_with_itself():
    assert "ptq-int8" not in map(str, exported(trained=False).models)
    assert "ptq-int8" not in map(str, exported("quantize.baseline=false").models)


def test_a_graph_that_fails_is_left_out_with_what_is_derived_from_it():
    made = exported(store=Failing("teacher-fp32", "ptq-int8", "quantized-int8", "student-fp16"))
    assert [str(model) for model in made.models] == ["student-fp32"]
    assert {variant: str(model) for variant, model in made.shipped.items()} == {"fp32": "student-fp32"}
    why = "was left out: the graph does not compute what X computes; found: agreement 80%."
    assert set(made.left_out) == {
        *(f"{name} {why}" for name in ("teacher-fp32", "ptq-int8", "quantized-int8", "student-fp16")),
        "quantized-int8-asym was left out, because int8 was.",
    }


def test_the_graph_that_all_rests_on_must_not_fail():
    with pytest.raises(ExportError, match="does not compute"):
        exported(store=Failing("student-fp32"))


def test_an_engine_that_crashes_is_found_before_anything_is_trained(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    settings = from_mapping(RECIPE).settings
    EXPORT.check_machine(settings)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(BackendError, match="crashed: SIGSEGV"):
        EXPORT.check_machine(settings)
