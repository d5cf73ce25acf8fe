"""`--allow-code`: every command that runs a recipe has it, and without it no code of a recipe runs."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from edgekd import plugins
from edgekd.cli import group
from edgekd.cli._stages import RecipeOptions
from edgekd.errors import ModelError, UsageError

COMMANDS = ["run", "train", "distill", "prune", "quantize", "export"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Its network leaves a trace when it is loaded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text("open('ran', 'w').close()\nraise ValueError('loaded')\n")
    content = {
        "name": "own",
        "data": {"source": "digits", "image_size": 16, "limit": 128},
        "teacher": {"model": "nets.py:build", "train": {"epochs": 1}},
        "student": {"model": "cifar/resnet8"},
        "prune": {},
        "quantize": {},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("name", COMMANDS)
def test_without_the_option_nothing_runs(name, recipe):
    shown = CliRunner().invoke(plugins.load("command", name), [str(recipe)])
    assert isinstance(shown.exception, UsageError) and "add --allow-code" in str(shown.exception)
    assert not recipe.with_name("ran").exists() and not recipe.with_name("runs").exists()


@pytest.mark.parametrize("name", ["run", "distill"])
def test_with_the_option_it_does(name, recipe):
    shown = CliRunner().invoke(plugins.load("command", name), [str(recipe), "--allow-code"])
    assert isinstance(shown.exception, ModelError) and "nets.py, line 2: raise ValueError" in str(shown.exception)
    assert recipe.with_name("ran").exists()


def test_a_plan_refuses_what_the_run_refuses_and_runs_code_only_where_it_may(recipe):
    run = plugins.load("command", "run")
    shown = CliRunner().invoke(run, [str(recipe), "--plan"])
    assert isinstance(shown.exception, UsageError) and not recipe.with_name("ran").exists()
    shown = CliRunner().invoke(run, [str(recipe), "--plan", "--allow-code"])
    assert isinstance(shown.exception, ModelError) and "nets.py, line 2: raise ValueError" in str(shown.exception)
    assert not recipe.with_name("runs").exists()


def test_the_command_that_resumes_allows_it_too():
    assert RecipeOptions("r.yaml", None, (), True, False).again("run") == "edgekd run r.yaml --allow-code"
    assert RecipeOptions("r.yaml", None, (), False, False).again("run") == "edgekd run r.yaml"


def test_the_way_to_go_on_is_a_command_that_works():
    assert RecipeOptions("my recipe.yaml", "runs/c d", ("a.b=1",), False, False).again("prune") == (
        "edgekd prune 'my recipe.yaml' --set a.b=1 --out 'runs/c d'"
    )
    parent = click.Context(group)
    parent.params = {"plugins": ("my plugins",), "profiles": ("boards",)}
    with click.Context(click.Command("run"), parent=parent):
        line = "edgekd --plugins 'my plugins' --profiles boards run shoes.yaml"
        assert RecipeOptions("shoes.yaml", None, (), False, False).again("run") == line
