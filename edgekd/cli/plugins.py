from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekd.errors import EdgekdError
    from edgekd.plugin_places import Plugin


@click.command("plugins", short_help="List losses, schemes, data sources, variants, backends and models.")
@click.argument("kind", required=False)
@click.option("--check", is_flag=True, help="Import every plugin, and show which are broken.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def command(context: click.Context, kind: str | None, check: bool, as_json: bool) -> None:
    """List all plugins by name, and where they come from: all kinds, or one KIND.

    The list alone imports nothing; --check imports every plugin, and exits with 1 where one is broken.
    """
    import json

    from edgekd import plugins

    kinds = plugins.outside_kinds() if kind is None else [plugins.kind_named(kind)]
    found = {name: list(plugins.check(name)) if check else list(plugins.listed(name)) for name in kinds}
    if as_json:
        click.echo(json.dumps({name: [_row(*each) for each in rows] for name, rows in found.items()}, indent=2))
    else:
        for name, rows in found.items():
            _show(name, rows)
    context.exit(int(check and any(problem for rows in found.values() for _, problem in rows)))


def _row(plugin: Plugin, problem: EdgekdError | None) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "from": plugin.origin,
        "file": plugin.place,
        "broken": str(problem) if problem is not None else None,
    }


def _show(kind: str, rows: list[tuple[Plugin, EdgekdError | None]]) -> None:
    """One line per origin of plugins, then the broken ones with the reason."""
    working: dict[str, list[str]] = {}
    for plugin, problem in rows:
        if problem is None:
            working.setdefault(plugin.origin, []).append(plugin.name)
    for origin, names in working.items():
        click.echo(f"{kind:<8}  {', '.join(names)}{'' if origin == 'edgekd' else f'  ({origin})'}")
    for plugin, problem in rows:
        if problem is not None:
            reason = str(problem).replace("\n", "\n          ")
            click.echo(f"{kind:<8}  {plugin.name} is broken  ({plugin.origin})\n          {reason}")
