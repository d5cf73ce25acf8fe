"""What the documents promise: commands, options, links and names that are really there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import edgekd
from edgekd import plugins
from edgekd.cli import group
from edgekd.recipe import load as recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def _links(page: Path) -> list[str]:
    return re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())


def _commands(page: Path) -> list[str]:
    code = "\n".join(re.findall(r"```(?:bash)?\n(.*?)```", page.read_text(), re.DOTALL))
    return re.findall(r"^edgekd [^\n]+", code, re.MULTILINE)


def test_the_pages_have_links_commands_and_recipes_to_look_at():
    for count in (_links, _commands, lambda page: _blocks(page, "yaml"), lambda page: _blocks(page, "python")):
        assert sum(len(count(page)) for page in PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in _links(page):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for line in _commands(page):
        known, words = _options(line.split("#")[0].split()[1:])
        assert {word for word in words if word.startswith("--")} <= known, line
    for name in re.findall(r"`scripts/(\w+)", page.read_text()):
        assert (ROOT / "scripts" / name).is_file()


def _options(words: list[str]) -> tuple[set[str], list[str]]:
    """The options of the command in a line, with those of the groups above it, and the line's words."""
    command, known, context = group, set(), click.Context(group)
    for word in words:
        if isinstance(command, click.Group) and word in command.list_commands(context):
            known |= {option for parameter in command.params for option in parameter.opts}
            command = command.get_command(context, word)
    assert not isinstance(command, click.Group), f"no command in: {' '.join(words)}"
    return known | {option for parameter in command.params for option in parameter.opts}, words


def _needs_teacher(recipe: dict[str, Any]) -> bool:
    """Whether a recipe's scheme needs a teacher."""
    scheme = recipe.get("distill", {}).get("scheme", "offline")
    return bool(plugins.load("scheme", scheme if isinstance(scheme, str) else scheme["name"]).needs_teacher)


def _write_files(page: Path, folder: Path) -> None:
    """The Python files that a page shows: the first line of each is a comment with its name."""
    for text in _blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", text):
            (folder / named[1]).write_text(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_are_valid(page, tmp_path, monkeypatch):
    """A section alone is read as part of a recipe that has the others."""
    _write_files(ROOT / "docs" / "own_network.md", tmp_path)
    (tmp_path / "teacher.onnx").touch()
    monkeypatch.chdir(tmp_path)
    rest = {
        "name": "shoes",
        "data": {"source": "image-folder", "root": "data/shoes"},
        "teacher": {"model": "cifar/resnet20", "train": {"epochs": 1}},
        "student": {"model": "cifar/resnet8"},
    }
    for text in _blocks(page, "yaml"):
        written = yaml.safe_load(text)
        others = {key: value for key, value in rest.items() if key != "teacher" or _needs_teacher(written)}
        whole = written if "name" in written else {**others, **written}
        assert recipe.from_mapping(whole, allow_code=True).settings.name == "shoes"


def test_the_network_of_your_own_is_distilled_as_its_page_shows(tmp_path):
    """Its files as they stand there, its program in a process of its own; fewer images and epochs."""
    page = ROOT / "docs" / "own_network.md"
    _write_files(page, tmp_path)
    (written,) = map(yaml.safe_load, _blocks(page, "yaml"))
    written["data"]["limit"] = 128
    written["teacher"]["train"] = {"epochs": 1}
    (tmp_path / "shoes.yaml").write_text(yaml.safe_dump(written))
    (program,) = (text for text in _blocks(page, "python") if "edgekd.distill" in text)
    (load,) = (text for text in _blocks(page, "python") if "Checkpoint.load" in text)
    (tmp_path / "program.py").write_text(program)
    shown = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    (checkpoint,) = (tmp_path / "runs" / "shoes" / "stages").glob("distill-*")
    shown = subprocess.run(
        [sys.executable, "-c", load.replace("path/to/checkpoint", str(checkpoint)) + "print(network[-1])"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "in_features=32, out_features=10" in shown.stdout, shown.stderr


@pytest.mark.parametrize("kind", ["method", "scheme"])
def test_every_method_and_every_scheme_is_on_its_page(kind):
    page = (ROOT / "docs" / "methods.md").read_text()
    assert [name for name in plugins.names(kind) if f"`{name}`" not in page] == []


def test_python_names_exist():
    text = "\n".join(_blocks(ROOT / "README.md", "python"))
    assert set(re.findall(r"edgekd\.(\w+)\(", text)) <= set(edgekd.__all__)
    for name in edgekd.__all__:
        assert callable(getattr(edgekd, name))


def test_every_command_has_one_line_of_help():
    for name in plugins.names("command"):
        command = group.get_command(None, name)
        assert command is not None and command.short_help and command.help
