from __future__ import annotations

import click


@click.command("doctor", short_help="Show what works on this machine and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> None:
    """Examine this machine: packages, engines, GPU, disk. Tries to import the engines; changes nothing."""
    import json
    from dataclasses import asdict

    from edgekd.cli._doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    for finding in findings:
        mark = click.style("✓", fg="green") if finding.ok else click.style("–", fg="yellow")
        click.echo(f"{mark} {finding.what:<14} {finding.found}")
        if finding.hint:
            click.echo(f"  {'':<14} {finding.hint}")
