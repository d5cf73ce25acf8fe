from __future__ import annotations

import click


def _shape(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.lower().split("x")
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not a shape; write it as 1x3x224x224")
    return tuple(map(int, parts))


@click.command("bench", short_help="Measure latency, memory and load time of a bundle, ONNX file or engine.")
@click.argument("target", type=click.Path())
@click.option("--variant", help="A variant of the bundle; default: all that the engine runs.")
@click.option("--backend", help="An inference engine by name.")
@click.option("--device", default="this-machine", show_default=True, help="Where to measure.")
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="Default: the model's own if fixed, else 1."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads per operator; default: one per usable core.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True)
@click.option("--warmup", type=click.FloatRange(min=0), default=0.2, show_default=True, help="Seconds of warm-up.")
@click.option("--input-shape", callback=_shape, metavar="1x3x224x224", help="For models whose input shape is dynamic.")
@click.option("--json", "as_json", is_flag=True, help="Print the complete records as JSON.")
def command(
    target: str,
    variant: str | None,
    backend: str | None,
    device: str,
    batches: tuple[int, ...],
    threads: int | None,
    seconds: float,
    warmup: float,
    input_shape: tuple[int, ...] | None,
    as_json: bool,
) -> None:
    """Measure TARGET: a bundle's folder, any .onnx file, or a built engine's file."""
    import json

    from edgekd.bench import show
    from edgekd.bench.measure import benchmark

    with show.progress() as progress:
        records = benchmark(
            target,
            variant=variant,
            backend=backend,
            batch_sizes=batches or None,
            threads=threads,
            seconds=seconds,
            warmup_seconds=warmup,
            input_shape=input_shape,
            device=device,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps([record.model_dump(mode="json") for record in records]))
    else:
        show.show(records)
