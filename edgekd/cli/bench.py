from __future__ import annotations

import click

_DIGITS = 10


def _shapes(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[int, ...]] | None:
    """By the input's name, which is empty for a shape without one."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        # Names of inputs may have any characters, also this one.
        name, _, shape = value.rpartition("=")
        parts = shape.lower().split("x")
        if not all(part.isdecimal() and len(part) < _DIGITS for part in parts):
            raise click.BadParameter(f"{value!r} is not a shape; write it as 1x3x224x224, or NAME=1x3x224x224")
        if name in shapes:
            raise click.BadParameter(f"two shapes for {f'the input {name!r}' if name else 'the only input'}")
        shapes[name] = tuple(map(int, parts))
    return shapes or None


@click.command("bench", short_help="Measure latency, memory and load time of a bundle, ONNX file or engine.")
@click.argument("target", type=click.Path())
@click.option("--variant", help="A variant of the bundle; default: all that the engine runs.")
@click.option("--backend", help="An inference engine by name.")
@click.option("--device", default="this-machine", show_default=True, help="Where to measure.")
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="Default: the model's own if fixed, else 1."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads per operator; at most one per usable core, the default."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True)
@click.option("--warmup", type=click.FloatRange(min=0), default=0.2, show_default=True, help="Seconds of warm-up.")
@click.option(
    "--input-shape",
    "input_shapes",
    callback=_shapes,
    multiple=True,
    metavar="[NAME=]1x3x224x224",
    help="The whole shape of an input with dynamic dimensions; with NAME where there are several inputs.",
)
@click.option(
    "--input", "input_file", type=click.Path(), metavar="FILE.npz", help="Arrays by input name; default: random values."
)
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
    input_shapes: dict[str, tuple[int, ...]] | None,
    input_file: str | None,
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
            input_shape=input_shapes,
            input_file=input_file,
            device=device,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps([record.model_dump(mode="json") for record in records]))
    else:
        show.show(records)
