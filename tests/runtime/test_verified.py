"""What was verified on this machine is remembered by everything that it depends on, and nothing else is believed."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from edgekd.runtime import backends, processor
from edgekd.runtime.bundle import read
from edgekd.runtime.verified import Subject, recall, remember

SUBJECT = Subject("c" * 64, "int8-asym", "", "onnxruntime", "1.31.1", "AMD EPYC", "avx2 avx512_vnni")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("difference", [0.0, 1.5e-3, math.inf])
def test_what_is_remembered_is_recalled(difference, cache):
    assert recall(SUBJECT) is None
    remember(SUBJECT, difference)
    assert recall(SUBJECT) == difference
    assert SUBJECT.place.parent == cache / "edgekd" / "verified"


@pytest.mark.parametrize("name", [each.name for each in fields(Subject)])
def test_with_any_difference_of_bundle_engine_or_processor_nothing_is_recalled(name):
    remember(SUBJECT, 0.0)
    assert recall(replace(SUBJECT, **{name: "another"})) is None


def _broken(**changes: object) -> str:
    record = json.loads(SUBJECT.place.read_text())
    return json.dumps({**record, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"difference": "0"},
        {"difference": -1.0},
        {"difference": True},
        {"difference": [0.0]},
        {"format": 2},
        {"cpu": "another"},
        {"bundle": None},
    ],
)
def test_an_entry_that_says_something_else_is_ignored(changes):
    remember(SUBJECT, 0.0)
    SUBJECT.place.write_text(_broken(**changes))
    assert recall(SUBJECT) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"null", b"{}", b'{"format": 1', b'{"difference": NaN}'])
def test_a_damaged_entry_is_ignored_and_replaced(content):
    remember(SUBJECT, 0.0)
    SUBJECT.place.write_bytes(content)
    assert recall(SUBJECT) is None
    remember(SUBJECT, 0.5)
    assert recall(SUBJECT) == 0.5


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember(SUBJECT, 0.0)
    assert recall(SUBJECT) is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", _no_home)
    remember(SUBJECT, 0.0)
    assert recall(SUBJECT) is None


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_subject_is_about_this_machine_and_about_the_file_that_is_opened(linear_bundle, tmp_path):
    manifest, backend = read(linear_bundle), backends.find("onnxruntime")
    mine = Subject.here(manifest, "fp32", manifest.graph("fp32"), backend)
    assert (mine.bundle, mine.variant, mine.file) == (manifest.checksum, "fp32", "")
    assert (mine.engine, mine.version) == ("onnxruntime", backend.version())
    assert (mine.cpu, mine.instruction_sets) == (processor.name(), " ".join(processor.instruction_sets() or ()))
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"first")
    built = Subject.here(manifest, "fp32", engine, backend)
    engine.write_bytes(b"second one")
    assert len({mine, built, Subject.here(manifest, "fp32", engine, backend)}) == 3
