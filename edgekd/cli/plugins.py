from __future__ import annotations

import click


@click.command("plugins", short_help="List methods, data sources, backends and models.")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """List what this edgekd knows by name: all kinds, or one KIND."""
    import json

    from edgekd import plugins
    from edgekd.errors import UnknownNameError

    if kind is not None and kind not in plugins.KINDS:
        raise UnknownNameError("kind of plugin", kind, plugins.KINDS)
    found = {name: plugins.names(name) for name in plugins.KINDS if kind in (None, name)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, names in found.items():
        click.echo(f"{name:<8}  {', '.join(names)}")
