"""What the commands that run a recipe have in common: their options, and running up to one stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekd.cli._interrupt import resumed_by

if TYPE_CHECKING:
    from edgekd.recipe.load import Recipe

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class RecipeOptions:
    """RECIPE, --out, --set, --allow-code and --json, as they were given."""

    recipe: str
    out: str | None
    overrides: tuple[str, ...]
    allow_code: bool
    as_json: bool

    def load(self) -> tuple[Recipe, Path]:
        """The checked recipe and the run's folder.

        Before anything that only a workstation has is imported: a device gets a message, not a missing module.
        """
        from edgekd.recipe import load as recipes

        loaded = recipes.load(self.recipe, self.overrides, allow_code=self.allow_code)
        folder = Path(self.out) if self.out else Path("runs") / loaded.settings.name
        return replace(loaded, command=self.again("run")), folder

    def again(self, command: str, *arguments: str) -> str:
        """The command line that goes on after an interruption."""
        import shlex

        sets = [word for override in self.overrides for word in ("--set", override)]
        allowed = ["--allow-code"] if self.allow_code else []
        place = ["--out", self.out] if self.out else []
        return shlex.join(["edgekd", *_group_options(), command, self.recipe, *sets, *place, *allowed, *arguments])


def recipe_options(function: F) -> F:
    """Adds RECIPE, --out, --set, --allow-code and --json to a command, whose function gets them as a RecipeOptions."""

    @wraps(function)
    def wrapped(
        *, recipe: str, out: str | None, overrides: tuple[str, ...], allow_code: bool, as_json: bool, **others: Any
    ) -> Any:
        return function(RecipeOptions(recipe, out, overrides, allow_code, as_json), **others)

    command: Any = wrapped
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, e.g. distill.epochs=2."),
        click.option("--allow-code", is_flag=True, help="Run Python code that the recipe or a checkpoint brings."),
        click.option("--out", type=click.Path(file_okay=False), help="The run's folder; default: runs/<name>."),
        click.argument("recipe"),
    ):
        command = decorate(command)
    wrapped_with_options: F = command
    return wrapped_with_options


def run_until(stage: str, options: RecipeOptions, resume: str) -> None:
    """Run a recipe up to a stage and show what that made.

    Args:
        resume: the command line that goes on after an interruption.
    """
    with resumed_by(resume):
        loaded, folder = options.load()

        from edgekd import pipeline
        from edgekd.cli._terminal import Terminal, show_artifact
        from edgekd.models.code import permitted

        with permitted(loaded.code), Terminal(quiet=options.as_json) as terminal:
            made = pipeline.run_until(stage, loaded, folder, listener=terminal, console=terminal)
            if loaded.settings.budget is not None:
                terminal.note("The budget was not judged: that is done at the end of a whole run.")
    show_artifact(made, folder, as_json=options.as_json)


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
    def command(options: RecipeOptions) -> None:
        run_until(stage or name, options, options.again(name))

    return command


def _group_options() -> list[str]:
    """The folders that were named before the command."""
    context = click.get_current_context(silent=True)
    folders = context.find_root().params if context is not None else {}
    return [
        word for name in ("plugins", "profiles") for folder in folders.get(name, ()) for word in (f"--{name}", folder)
    ]
