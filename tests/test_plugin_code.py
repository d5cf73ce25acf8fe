"""Edited code of a plugin from outside runs again what depends on it, and nothing before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd import pipeline, plugins
from edgekd.recipe import load as recipes
from edgekd.runs import Run
from edgekd.runtime import backends
from edgekd.stages import _code
from edgekd.stages.engines import engines
from edgekd.store.artifacts import Json, digest
from edgekd.store.plan import Outline
from edgekd.store.store import StageLabel

FILES = {
    "methods": """from edgekd.distillation.method import Method

def mine(student_logits, teacher_logits):
    return (student_logits - teacher_logits).square().sum(1).mean()

METHOD = Method(function=mine)
""",
    "models": "from edgekd.models.sources.cifar import MODELS\n",
    "variants": "from edgekd.export.variants.fp16 import VARIANT\n",
    "backends": """\
from dataclasses import replace
from edgekd.runtime.backends import EngineBuilder
from edgekd.runtime.backends.onnxruntime import BACKEND
builder = EngineBuilder(build=print, built=lambda manifest: {}, device=lambda: {"gpu": "mine"})
BACKEND = replace(BACKEND, title="Mine", engines=builder)
""",
}
RECIPE = {
    "name": "tiny",
    "data": {"source": "digits", "image_size": 8, "limit": 64},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "mine/resnet8", "stem": "standard"},
    "distill": {"epochs": 1, "baseline": False, "objective": [{"method": "mine"}]},
    "export": {"variants": ["fp32", "mine"]},
}


class Keys(Outline):
    """Follows the keys through all stages, each of which counts its inputs' keys in; nothing is made."""

    def __init__(self) -> None:
        super().__init__()
        self.of_stage: dict[str, str] = {}
        self._made: list[tuple[object, str]] = []

    def stage(self, kind: type[Any], label: StageLabel, *, settings: Json, inputs: Any, make: Any) -> Any:
        pending = super().stage(kind, label, settings=settings, inputs=inputs, make=make)
        keys = {role: [key for made, key in self._made if made is each] for role, each in inputs.items()}
        self.of_stage[label.name] = digest([settings, keys])
        self._made.append((pending, self.of_stage[label.name]))
        return pending


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, with a plugin of each kind."""
    for kind, text in FILES.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "mine.py").write_text(text)
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    return tmp_path


def _keys() -> dict[str, str]:
    keys = Keys()
    run = Run(recipes.from_mapping(RECIPE).settings, keys)
    made = pipeline.chain(run)
    engines(run, made.bundle, made.exported.shipped)
    return keys.of_stage


EVERYTHING = {"data", "preflight", "teacher", "distill", "evaluate", "bench", "bundle", "engines"} | {
    f"export-{model}" for model in ("teacher-fp32", "student-fp32", "student-mine")
}


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("models", {"data", "teacher", "export-teacher-fp32"}),
        # The preflight tries each loss once.
        ("methods", {"data", "teacher", "export-teacher-fp32"}),
        ("variants", EVERYTHING - {"export-student-mine", "evaluate", "bench", "bundle", "engines"}),
        ("backends", EVERYTHING - {"bench", "bundle", "engines"}),
    ],
)
def test_edited_code_runs_again_what_depends_on_it(folder: Path, kind: str, kept: set[str]) -> None:
    before = _keys()
    assert before == _keys() and before.keys() == EVERYTHING
    with (folder / kind / "mine.py").open("a") as stream:
        stream.write("# changed\n")
    after = _keys()
    assert {name for name in before if before[name] == after[name]} == kept


def test_the_reference_backend_may_come_from_outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes what graphs are compared with, their test accuracy and the bundle's test vectors."""
    own, mine = _keys(), backends.find("mine")
    monkeypatch.setattr(backends, "all_backends", lambda: [mine])
    assert backends.reference() is mine
    changed = {name for name, key in _keys().items() if key != own[name]}
    assert changed == {name for name in EVERYTHING if name.startswith("export-")} | {
        "evaluate",
        "bench",
        "bundle",
        "engines",
    }
    monkeypatch.setattr(backends, "all_backends", list)
    assert _code.code_of_reference() == {}


def test_code_of_edgekd_itself_is_in_no_key() -> None:
    assert _code.code_of(backends.all_backends()[:2]) == _code.code_of_reference() == {}
    assert not {**plugins.code_key("models", "cifar"), **plugins.code_key("variant", "fp32")}
