from __future__ import annotations

import click


@click.command("report", short_help="Write a run's report again.")
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(dir_okay=False), help="Default: report.html in the run's folder.")
def command(run: str, out: str | None) -> None:
    """Render the report of RUN, a run's folder or a report.json, with this version's template."""
    from pathlib import Path

    from edgekd.errors import StoreError, require, summary
    from edgekd.store.artifacts import read_json

    require("jinja2", purpose="a report", extra="train")
    from edgekd.report.html import write

    source = Path(run) / "report.json" if Path(run).is_dir() else Path(run)
    place = Path(out) if out else source.with_suffix(".html")
    record = read_json(source)
    try:
        click.echo(write(record, place, source))
    except OSError as error:
        raise StoreError(
            f"{place} cannot be written", found=summary(error), hint="name another file with --out"
        ) from error
