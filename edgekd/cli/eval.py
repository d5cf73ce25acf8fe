from __future__ import annotations

import click

# Of many classes, as many are printed, the worst first; --json has all.
_SHOWN = 10


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
    low, high = result.interval
    click.echo(f"{result.accuracy:.2%} of {result.samples} images ({result.variant}, {result.engine})")
    click.echo(f"95 % interval {low:.1%} to {high:.1%}, mean of the classes {result.balanced_accuracy:.2%}")
    label, share = result.majority
    click.echo(f"always answering {label}, the most frequent class: {share:.2%}")
    for name, accuracy in sorted(result.per_class.items(), key=lambda each: each[1])[:_SHOWN]:
        click.echo(f"  {name:<24} {accuracy:8.2%}")
    for confusion in result.confused:
        click.echo(f"  {confusion.count} x {confusion.label} taken for {confusion.answer}")
    for problem in result.problems:
        click.echo(f"not usable: {problem}", err=True)
    if result.left_out:
        click.echo(f"left out, not images: {result.left_out}", err=True)
    for name in result.unreadable:
        click.echo(f"skipped, unreadable: {name}", err=True)
