"""A stage from outside the package: CONTRIBUTING's worked example, read from there and run."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd import pipeline
from edgekd.cli._terminal import Terminal
from edgekd.data.reader import open_reader
from edgekd.errors import ModelError, RecipeError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.code import permitted
from edgekd.recipe import load as recipes
from edgekd.recipe.settings import RecipeSettings
from edgekd.store.artifacts import read_json

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
RECIPE = {
    "name": "tiny",
    "data": {"source": "digits", "image_size": 8, "limit": 96, "validation": 0.1, "test": 0.1},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 32}},
    "student": {"model": "cifar/resnet8"},
    "distill": {"epochs": 1, "batch_size": 32, "baseline": False},
    "refresh": {"images": 64},
    "export": {"variants": ["fp32"]},
    "bench": {"batch_sizes": [1], "seconds": 0.02, "warmup_seconds": 0.01},
}
WITHOUT_NORMS = """
from torch import nn

def build(num_classes):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pooled, nn.Linear(8, num_classes))
"""


class Outside:
    """The example's three pieces, none of them in the package: modules in a folder."""

    def __init__(self, folder: Path) -> None:
        file, section, line, self.program = re.findall(
            r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        stage = _imported(folder / "refresh.py", file)
        heading = "from pydantic import Field\nfrom edgekd.recipe.settings import *\n"
        self.section = _imported(folder / "own_settings.py", heading + section).RefreshSettings
        source, count = re.subn(
            r"(\n    student = schemes\.distill\(.*\n)", rf"\g<1>{line}", inspect.getsource(pipeline), count=1
        )
        assert count == 1
        edited = _imported(folder / "own_pipeline.py", source)
        vars(edited)["refresh"] = stage.refresh
        self.chain: pipeline.Chain = edited.chain
        self.settings: type[RecipeSettings] = RecipeSettings

    def run_program(self, folder: Path) -> pipeline.RunResult:
        """Run the guide's program in a folder with its recipe."""
        (folder / "shoes.yaml").write_text(json.dumps(RECIPE))
        names = {"RecipeSettings": RecipeSettings, "RefreshSettings": self.section, "my_chain": self.chain}
        program = _imported(folder / "program.py", self.program, **names)
        self.settings = program.MySettings
        result: pipeline.RunResult = program.result
        return result

    def recipe(self, **sections: Any) -> recipes.Recipe:
        return recipes.from_mapping({**RECIPE, **sections}, settings=self.settings, allow_code=True)


def _imported(file: Path, source: str, **names: Any) -> Any:
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(f"outside_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    vars(module).update(names)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outside, pipeline.RunResult]:
    """The example's pieces, and what its program made."""
    folder = tmp_path_factory.mktemp("outside")
    pieces = Outside(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = pieces.run_program(folder)
    return pieces, replace(result, folder=folder / result.folder, report=folder / result.report)


@pytest.fixture(scope="module")
def outside(made: tuple[Outside, pipeline.RunResult]) -> Outside:
    return made[0]


@pytest.fixture(scope="module")
def finished(made: tuple[Outside, pipeline.RunResult]) -> pipeline.RunResult:
    return made[1]


def test_report_shows_it_where_it_stands_in_the_chain(finished: pipeline.RunResult) -> None:
    stages = read_json(finished.folder / "report.json")["stages"]
    names = [stage["name"] for stage in stages]
    assert names[names.index("distill") + 1] == "refresh"
    shown = stages[names.index("refresh")]
    assert (shown["title"], shown["facts"][0]) == ("Batch norms refreshed", "7 batch norms on 64 images")
    page = finished.report.read_text()
    assert "Batch norms refreshed" in page and "7 batch norms on 64 images" in page


def test_what_ships_has_the_fresh_statistics(finished: pipeline.RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder.parents[1])  # where the program ran
    final = finished.made.final
    assert final.manifest.stage is not None and final.manifest.stage.name == "refresh"
    network = checkpoints.load(final)
    reader = open_reader(finished.made.data, "train")
    ((inputs, _),) = reader.batches(reader.first(64))
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    assert torch.allclose(
        network.get_buffer(_first_mean(network)), first(torch.from_numpy(inputs)).mean((0, 2, 3)), atol=1e-5
    )


def _first_mean(network: torch.nn.Module) -> str:
    return next(name for name, _ in network.named_buffers() if name.endswith("running_mean"))


def test_terminal_plan_and_until_know_it(
    outside: Outside, finished: pipeline.RunResult, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = outside.recipe(), finished.folder
    planned = pipeline.plan(recipe, folder, chain=outside.chain)
    assert ("refresh", "reused") in [(stage.name, stage.state) for stage in planned]
    until = pipeline.plan(recipe, folder, until="refresh", chain=outside.chain)
    assert [stage.name for stage in until] == ["data", "preflight", "teacher", "distill", "refresh"]
    with Terminal(quiet=False) as terminal:
        made = pipeline.run_until("refresh", recipe, folder, chain=outside.chain, listener=terminal, console=terminal)
    assert isinstance(made, Checkpoint) and made.digest == finished.made.final.digest
    assert re.search(r"= refresh +reused +7 batch norms on 64 images", capsys.readouterr().err)


def test_preflight_asks_its_check_before_anything_is_trained(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(WITHOUT_NORMS)
    recipe = outside.recipe(student={"model": str(tmp_path / "nets.py") + ":build"})
    with permitted(recipe.code), pytest.raises(ModelError, match="refresh needs batch norms"):
        pipeline.run(recipe, tmp_path / "run", chain=outside.chain)
    assert [stage.name.split("-")[0] for stage in (tmp_path / "run" / "stages").iterdir()] == ["data"]


def test_its_section_is_checked_with_the_rest(outside: Outside, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps({**RECIPE, "refresh": {"imagse": 3}}, indent=1))
    with pytest.raises(RecipeError, match=r"tiny.yaml:\d+ refresh.imagse: unknown key; did you mean 'images'"):
        recipes.load(file, settings=outside.settings)
    with pytest.raises(UsageError, match="has no refresh section"):
        pipeline.run_until("refresh", outside.recipe(refresh=None), tmp_path / "run", chain=outside.chain)


def test_a_chain_without_the_stage_refuses_its_section(outside: Outside, tmp_path: Path) -> None:
    for refused in (pipeline.run, pipeline.plan):
        with pytest.raises(UsageError, match=r"no stage of the chain uses the section refresh\n  allowed: data, pre"):
            refused(outside.recipe(), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
    assert pipeline.plan(outside.recipe(refresh=None), tmp_path / "run")


def test_without_its_section_it_is_left_out(outside: Outside, tmp_path: Path) -> None:
    planned = pipeline.plan(outside.recipe(refresh=None), tmp_path, chain=outside.chain)
    assert "refresh" not in [stage.name for stage in planned]
