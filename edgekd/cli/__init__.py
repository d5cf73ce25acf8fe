"""The command line: one file per command. This module finds the commands and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from edgekd import __version__
from edgekd.cli._interrupt import ended_by_signals
from edgekd.errors import BundleWarning, EdgekdError, PluginWarning

# By name: importing a command file puts the attribute `plugins` on this package.
from edgekd.plugins import failure, load, names

_INTERRUPTED = 130


class Commands(click.Group):
    """Loads a command's file when it is needed; the files import nothing heavy until they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(names("command"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in names("command"):
            return None
        command: click.Command = load("command", cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-"):
            load("command", args[0])
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgekd")
@click.option(
    "--plugins",
    type=click.Path(exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="A folder with plugins: methods/, sources/, … Also: $EDGEKD_PLUGINS.",
)
@click.option(
    "--profiles",
    type=click.Path(exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="A folder with device profiles. Also: $EDGEKD_PROFILES.",
)
@click.pass_context
def group(context: click.Context, plugins: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    """Distill a large image classifier into a small one that is verified to run on an edge device."""
    context.with_resource(_folders_added("EDGEKD_PLUGINS", plugins))
    context.with_resource(_folders_added("EDGEKD_PROFILES", profiles))


@contextmanager
def _folders_added(variable: str, folders: Sequence[str]) -> Iterator[None]:
    """Put folders first in an environment variable, which processes that a command starts inherit."""
    before = os.environ.get(variable)
    if folders:
        absolute = [str(Path(folder).absolute()) for folder in folders]
        os.environ[variable] = os.pathsep.join([*absolute, *([before] if before else [])])
    try:
        yield
    finally:
        if folders:
            os.environ.pop(variable)
            os.environ.update({variable: before} if before is not None else {})


def main() -> NoReturn:
    """Run the command line: exit code 0 done, 1 failed, 2 wrong usage or recipe, 3 budget missed, 130 interrupted.

    143 where it was ended by SIGTERM, 129 by SIGHUP.
    """
    code = 0
    warnings.showwarning = _warning_handler(warnings.showwarning)
    try:
        with ended_by_signals():
            code = group.main(standalone_mode=False) or 0
    except EdgekdError as error:
        click.echo(f"edgekd: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("edgekd: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader of the pipe (head, less) has exited.
        sys.stderr.close()
    except (Exception, SystemExit) as error:  # a plugin's code may raise anything
        if (failed := failure(error)) is None:
            raise
        click.echo(f"edgekd: {failed}", err=True)
        sys.exit(failed.exit_code)
    sys.exit(code)


def _warning_handler(otherwise: Callable[..., None]) -> Callable[..., None]:
    """A handler that prints each warning about plugins or bundles once, as a message; any other goes to `otherwise`."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **further: Any) -> None:
        if not issubclass(category, (PluginWarning, BundleWarning)):
            otherwise(message, category, *where, **further)
        elif str(message) not in shown:
            shown.add(str(message))
            click.echo(f"edgekd: {message}", err=True)

    return show
