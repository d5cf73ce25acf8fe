from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd import plugins
from edgekd.data.dataset import Dataset
from edgekd.preflight import warnings_of
from edgekd.recipe import load as recipes
from edgekd.runs import Run
from edgekd.stages import data
from edgekd.store.plan import Plan
from edgekd.store.store import Store


def test_edited_code_of_a_source_from_outside_prepares_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plugins" / "sources" / "my_digits.py"
    file.parent.mkdir(parents=True)
    file.write_text("from edgekd.data.sources.digits import SOURCE\n")
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "plugins"))
    recipe = recipes.from_mapping(
        {
            "name": "shoes",
            "data": {"source": "my-digits", "image_size": 8, "limit": 64},
            "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
            "student": {"model": "cifar/resnet8"},
        }
    )
    run = Run(recipe.settings, Store(tmp_path / "run"))
    places = [data.data(run).path for _ in range(2)]
    file.write_text(file.read_text() + "# changed\n")
    places.append(data.data(run).path)
    assert places[0] == places[1] != places[2]


class Shown:
    """A console that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def _numbered(root: Path, names: Iterable[str] = ("1", "2", "10")) -> Path:
    generator = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def _run(
    root: Path, out: Path, *, plan: bool = False, teacher: dict[str, object] | None = None, **options: object
) -> tuple[Run, Shown]:
    recipe = recipes.from_mapping(
        {
            "name": "numbers",
            "data": {"source": "image-folder", "root": root, "image_size": 8, **options},
            "teacher": teacher or {"model": "cifar/resnet8", "checkpoint": "gone.pth"},
            "student": {"model": "cifar/resnet8"},
        }
    )
    console = Shown()
    return Run(recipe.settings, Plan(out) if plan else Store(out), console), console


def _facts(run: Run) -> tuple[Dataset, str]:
    made = data.data(run)
    return made, data.STAGE.facts(made)[1]


def test_the_order_of_numbered_classes_is_a_fact_and_in_the_plan(tmp_path: Path) -> None:
    root = _numbered(tmp_path / "images")
    run, console = _run(root, tmp_path / "plan", plan=True)
    data.data(run)
    assert console.warnings[0] == (
        "The classes are in the order data.class_order: name: 1, 10, 2. With natural it would be 1, 2, 10."
    )
    assert _facts(_run(root, tmp_path / "run")[0])[1] == "3 classes in order of name: 1, 10, 2"
    assert _facts(_run(root, tmp_path / "run", class_order="natural")[0])[1] == "3 classes in natural order: 1, 2, 10"
    words, _ = _run(_numbered(tmp_path / "words", ("cat", "dog")), tmp_path / "run")
    assert _facts(words)[1] == "2 classes in order of name"


def test_weights_without_class_names_and_an_order_that_nobody_decided(tmp_path: Path) -> None:
    root = _numbered(tmp_path / "images")
    run, console = _run(root, tmp_path / "run")
    (found,) = [each for each in warnings_of(run, data.data(run)) if "class names" in each]
    assert found.startswith("teacher.checkpoint has no class names") and found in console.warnings
    assert "by name it is 1, 10, 2, by number 1, 2, 10. Set data.class_order" in found
    for order in ("name", "natural"):
        decided, _ = _run(root, tmp_path / "run", class_order=order)
        assert not [each for each in warnings_of(decided, data.data(decided)) if "class names" in each]


def test_what_brings_class_names_and_what_does_not(tmp_path: Path, linear_bundle: Path) -> None:
    root, hub = _numbered(tmp_path / "images"), tmp_path / "hub"
    hub.mkdir()
    (hub / "model.safetensors").touch()
    shutil.copy(linear_bundle / "model.fp32.onnx", tmp_path / "alone.onnx")

    def warned(teacher: dict[str, object]) -> str:
        run, _ = _run(root, tmp_path / "run", teacher=teacher)
        return "".join(
            each.partition(" has no class names")[0]
            for each in warnings_of(run, data.data(run))
            if "class names" in each
        )

    (hub / "config.json").write_text('{"architecture": "resnet18"}')
    assert warned({"model": "timm/resnet18", "checkpoint": hub}) == "teacher.checkpoint"
    (hub / "config.json").write_text('{"architecture": "resnet18", "label_names": ["1", "2", "10"]}')
    assert warned({"model": "timm/resnet18", "checkpoint": hub}) == ""
    assert warned({"model": str(tmp_path / "alone.onnx")}) == "teacher.model"
    assert warned({"model": str(linear_bundle / "model.fp32.onnx")}) == ""
    assert warned({"model": "torchvision/resnet18", "pretrained": True}) == "", "1,000 classes: its last layer is new"
    assert warned({"model": "cifar/resnet8", "train": {}}) == ""
