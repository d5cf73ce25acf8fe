"""The command line: a file a command. This module only finds them, and turns errors into messages and exit codes."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from edgekd.errors import EdgekdError

# By name: importing a command file puts the attribute `plugins` on this package.
from edgekd.plugins import load, names

_INTERRUPTED = 130


class Commands(click.Group):
    """Loads a command's file when it is asked for; the files import nothing heavy until they run."""

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
@click.version_option(package_name="edgekd")
def group() -> None:
    """Distill a large image classifier into a small one that is proven to run on an edge device."""


def main() -> NoReturn:
    """Run the command line: exit code 0 done, 1 failed, 2 wrong usage or recipe, 130 interrupted."""
    code = 0
    try:
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
        # The reader (head, less) has seen enough.
        sys.stderr.close()
    sys.exit(code)
