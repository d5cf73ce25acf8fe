"""The commands that run a recipe up to one stage, which differ only in its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def recipe_options(function: F) -> F:
    """Adds RECIPE, --out, --set, --allow-code and --json to a command."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, e.g. distill.epochs=2."),
        click.option("--allow-code", is_flag=True, help="Run Python code that the recipe or a checkpoint brings."),
        click.option("--out", type=click.Path(file_okay=False), help="The run's folder; default: runs/<name>."),
        click.argument("recipe"),
    ):
        function = decorate(function)
    return function


def again(command: str, recipe: str, overrides: tuple[str, ...], out: str | None, allow_code: bool = False) -> str:
    """The command line that continues after an interruption."""
    import shlex

    sets = [word for override in overrides for word in ("--set", override)]
    allowed = ["--allow-code"] if allow_code else []
    place = ["--out", out] if out else []
    return shlex.join(["edgekd", *_group_options(), command, recipe, *sets, *place, *allowed])


def _group_options() -> list[str]:
    """The options before the command: --plugins and --profiles."""
    context = click.get_current_context(silent=True)
    folders = context.find_root().params if context is not None else {}
    return [
        word for name in ("plugins", "profiles") for folder in folders.get(name, ()) for word in (f"--{name}", folder)
    ]


def stage_command(name: str, *, stage: str | None = None, short_help: str, about: str) -> click.Command:
    """A command that runs a recipe up to a stage.

    Args:
        name: of the command.
        stage: the stage's name, where it differs from the command's.
        short_help: for the list of commands.
        about: the first sentence of its help.
    """

    @click.command(
        name,
        short_help=short_help,
        help=f"{about}\n\nRECIPE is a YAML file or a built-in name. The chain runs up to this stage; finished stages, "
        "also those of `edgekd run`, are reused.",
    )
    @recipe_options
    def command(recipe: str, out: str | None, overrides: tuple[str, ...], allow_code: bool, as_json: bool) -> None:
        from pathlib import Path

        from edgekd.recipe import load as recipes

        # Checked first: on a device this is one clear message, not an error about a missing module.
        loaded = recipes.load(recipe, overrides, allow_code=allow_code)
        folder = Path(out) if out else Path("runs") / loaded.settings.name

        from edgekd.cli._terminal import Terminal, show_artifact
        from edgekd.models.code import permitted
        from edgekd.pipeline import run_until

        resume = again(name, recipe, overrides, out, allow_code)
        with permitted(loaded.code), Terminal(quiet=as_json, resume=resume) as terminal:
            artifact = run_until(stage or name, loaded, folder, listener=terminal, console=terminal)
        show_artifact(artifact, folder, as_json=as_json)

    return command
