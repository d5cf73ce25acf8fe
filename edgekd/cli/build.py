from __future__ import annotations

import click


@click.command("build", short_help="Build a bundle's inference engines on this device.")
@click.argument("bundle", type=click.Path())
@click.option(
    "--variant", "variants", multiple=True, help="A variant of the bundle; default: all that the backend builds."
)
@click.option("--backend", help="An inference engine by name; default: the first that builds engines here.")
@click.option("--max-batch", type=click.IntRange(min=1), default=8, show_default=True, help="Largest batch size.")
@click.option(
    "--opt-batch", type=click.IntRange(min=1), default=1, show_default=True, help="Batch size to optimise for."
)
@click.option("--workspace-mb", type=click.IntRange(min=1), help="Memory per layer in MiB; default: no limit.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    bundle: str,
    variants: tuple[str, ...],
    backend: str | None,
    max_batch: int,
    opt_batch: int,
    workspace_mb: int | None,
    as_json: bool,
) -> None:
    """Build one engine per variant of BUNDLE into the engine cache, or reuse the one that is there."""
    import json

    from edgekd.runtime import engines
    from edgekd.runtime.backends import BuildOptions
    from edgekd.units import size

    built = engines.build(
        bundle,
        variants or None,
        backend=backend,
        options=BuildOptions(max_batch, opt_batch, workspace_mb),
        progress=lambda done, total, name: click.echo(f"engine {done + 1} of {total}: {name}", err=True),
    )
    if as_json:
        click.echo(json.dumps([engine.to_json() for engine in built], indent=2))
        return
    click.echo(f"{'variant':<10} {'':<7} {'seconds':>8} {'size':>8}  place")
    for engine in built:
        state = "reused" if engine.reused else "built"
        click.echo(
            f"{engine.variant:<10} {state:<7} {engine.seconds:>8.1f} {size(engine.size_bytes):>8}  {engine.path}"
        )
        if engine.note:
            click.echo(f"note: {engine.note}", err=True)
