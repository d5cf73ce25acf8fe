"""Prints measurements: a table on stdout, and a status line on stderr while they are running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.bench.environment import emulation_warning
from edgekd.bench.measurement import Measurement
from edgekd.bench.shapes import shown
from edgekd.bench.subnormals import subnormal_warning
from edgekd.runtime.backends import Progress
from edgekd.units import size

_WIDTH_IN_FILES = 160
_COLUMNS = ("batch", "p50 ms", "p90", "p95", "p99", "inputs/s", "load ms", "first ms", "peak")


@contextmanager
def progress() -> Iterator[Progress]:
    """A callback that updates a status line; it prints nothing if stderr is not a terminal."""
    console = Console(stderr=True)
    with console.status("") as status:
        yield lambda done, total, what: status.update(f"measuring {done + 1} of {total}: {escape(what)}")


def show(measurements: Sequence[Measurement]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_IN_FILES)
    first = measurements[0]
    place = f"threads {first.threads}, {first.environment.cpu}" if first.runs_on == "cpu" else first.runs_on
    emulated = ", emulated" if first.provenance == "emulated" else ""
    console.print(f"{escape(first.target)}: {first.engine}, {escape(place)} ({first.device}{emulated})")
    table = Table("model", box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for entry in measurements:
        table.add_row(escape(entry.variant or entry.target), *_cells(entry))
    console.print(table)
    inputs = "; ".join(dict.fromkeys(_inputs(entry) for entry in measurements))
    console.print(f"input: {escape(inputs)}", style="dim", soft_wrap=True)
    for note in notes(measurements):
        console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)


def notes(measurements: Sequence[Measurement]) -> list[str]:
    """Warnings about figures that may not be reliable, and about causes of slowness, one line each."""
    found = list(dict.fromkeys(filter(None, (*map(_emulated, measurements), *map(_subnormals, measurements)))))
    for entry in measurements:
        name = f"{entry.variant or entry.target}, batch {entry.batch_size}"
        if entry.busy:
            share = f"{entry.load.others_share:.0%}"
            found.append(
                f"{name}: the machine was busy, other processes used {share} of its cores' time. Measure again."
            )
        if entry.throttling.flagged:
            slower = f"{entry.throttling.slower_share:.1%}"
            found.append(f"{name}: the last third was {slower} slower than the first: throttled or disturbed.")
    return found


def _emulated(entry: Measurement) -> str | None:
    return emulation_warning(entry.environment)


def _subnormals(entry: Measurement) -> str | None:
    return subnormal_warning(entry, entry.variant or entry.target)


def _inputs(entry: Measurement) -> str:
    shapes = ", ".join(
        f"{each.name} {shown(each.shape)} {each.dtype}{'' if entry.input_file else f' ({each.values})'}"
        for each in entry.inputs
    )
    return f"{shapes or 'none'}{f', from {entry.input_file.name}' if entry.input_file else ''}"


def _cells(entry: Measurement) -> list[str]:
    latency, peak = entry.latency_ms, entry.memory.peak_bytes
    times = [f"{value:.3f}" for value in (latency.p50, latency.p90, latency.p95, latency.p99)]
    return [
        str(entry.batch_size),
        *times,
        f"{entry.throughput_per_s:,.1f}",
        f"{entry.load_ms:.1f}",
        f"{entry.first_inference_ms:.2f}",
        size(peak) if peak is not None else "-",
    ]
