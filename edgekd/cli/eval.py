from __future__ import annotations

import click


@click.command("eval", short_help="Accuracy of a bundle on a folder of images.")
@click.argument("bundle", type=click.Path())
@click.argument("images", type=click.Path())
@click.option("--variant", help="A variant of the bundle; default: the one that the engine prefers.")
@click.option("--backend", help="An inference engine by name.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(bundle: str, images: str, variant: str | None, backend: str | None, as_json: bool) -> None:
    """Measure BUNDLE on IMAGES, a folder with one subfolder of images per class."""
    import json
    from dataclasses import asdict
    from pathlib import Path

    from edgekd.runtime import load
    from edgekd.runtime.accuracy import measure

    result = measure(load(bundle, variant=variant, backend=backend), Path(images))
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
        return
    click.echo(f"{result.accuracy:.2%} of {result.samples} images ({result.variant}, {result.engine})")
    if result.left_out:
        click.echo(f"left out, not images: {result.left_out}", err=True)
    for name in result.unreadable:
        click.echo(f"skipped, unreadable: {name}", err=True)
