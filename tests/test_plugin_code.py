"""Edited code of a plugin from outside runs again what depends on it, and nothing before it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd import pipeline, plugins
from edgekd.recipe import load as recipes
from edgekd.runtime import backends
from edgekd.stages import _code

FILES = {
    "models": "from edgekd.models.sources.cifar import MODELS\n",
    "variants": "from edgekd.export.variants.fp16 import VARIANT\n",
    "backends": """\
from dataclasses import replace
from edgekd.runtime.backends.onnxruntime import BACKEND
BACKEND = replace(BACKEND, title="Mine")
""",
}
RECIPE = {
    "name": "tiny",
    "data": {"source": "digits", "image_size": 8, "limit": 64},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "mine/resnet8"},
    "distill": {"epochs": 1, "baseline": False},
    "export": {"variants": ["fp32", "mine"]},
    "bench": {"batch_sizes": [1], "seconds": 0.01, "warmup_seconds": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's folder, with a finished run beside it that uses a plugin of each kind."""
    folder = tmp_path_factory.mktemp("plugins")
    for kind, text in FILES.items():
        (folder / kind).mkdir()
        (folder / kind / "mine.py").write_text(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(plugins.FOLDERS, str(folder), prepend=os.pathsep)
        pipeline.run(recipes.from_mapping(RECIPE), folder / "run")
        yield folder


def _waiting(folder: Path) -> set[str]:
    return {stage.name for stage in pipeline.plan(recipes.from_mapping(RECIPE), folder / "run") if stage.state == "run"}


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("models", {"preflight", "distill"}),
        ("variants", {"export-student-mine"}),
        ("backends", {"bench"}),
    ],
)
def test_edited_code_runs_again_what_depends_on_it(folder: Path, kind: str, first: set[str]) -> None:
    assert not _waiting(folder)
    file = folder / kind / "mine.py"
    text = file.read_text()
    file.write_text(f"{text}# changed\n")
    assert _waiting(folder) == first
    file.write_text(text)
    assert not _waiting(folder)


def test_the_reference_backend_may_come_from_outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = backends.find("mine")
    monkeypatch.setattr(backends, "all_backends", lambda: [mine])
    assert backends.reference() is mine
    assert _code.code_of_reference() == {"backends": {"mine": plugins.code_key("backend", "mine")["code"]}}
    assert _waiting(folder) == {"export-teacher-fp32", "export-student-fp32"}


def test_code_of_edgekd_itself_is_in_no_key() -> None:
    assert _code.code_of(backends.all_backends()[:2]) == _code.code_of_reference() == {}
    assert not {**plugins.code_key("models", "cifar"), **plugins.code_key("variant", "fp32")}
