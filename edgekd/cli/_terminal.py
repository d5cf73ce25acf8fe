"""A run in the terminal: one line per finished stage, and a progress bar for the running one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from edgekd.export.model_id import ModelId
from edgekd.runtime import backends
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.plan import PlannedStage
from edgekd.store.store import Done

if TYPE_CHECKING:
    from edgekd.pipeline import RunResult


class Terminal:
    """A Listener and a Console that print to stderr; progress is a bar in a terminal, else a line now and then.

    Args:
        quiet: print nothing.
        resume: the command that continues after an interruption.
        every: seconds between lines of progress that is no terminal's.
    """

    def __init__(self, *, quiet: bool, resume: str, every: float = 15.0) -> None:
        self._every, self._last = every, time.monotonic()
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._resume = resume
        self._warned: set[str] = set()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<25}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bars.add_task("", visible=False, note="")

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._console.print(
                f"\nFinished stages and epochs are kept. Continue with:\n  {self._resume}", soft_wrap=True
            )

    def begin(self, stage: str) -> None:
        self._bars.reset(self._task, description=stage, visible=True, total=None, note="")
        if not self._console.is_terminal:
            self._console.print(f"  … {stage}")
            self._last = time.monotonic()

    def progress(self, stage: str, done: int, total: int, note: str) -> None:
        self._bars.update(self._task, description=stage, completed=done, total=total, note=note)
        if not self._console.is_terminal and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._console.print(f"    {stage}: {escape(note)}, {done:,} of {total:,}", soft_wrap=True)

    def end(self, done: Done) -> None:
        self._bars.update(self._task, visible=False)
        mark = "[green]✓[/]" if done.state == "run" else "[dim]=[/]"
        cost = f"{done.seconds:7.1f} s" if done.state == "run" else "   reused"
        self._console.print(f"  {mark} {done.name:<25} {cost}   {escape(', '.join(done.facts))}", soft_wrap=True)
        for warning in done.artifact.metrics.get("warnings", ()):
            self.warn(warning)

    def warn(self, message: str) -> None:
        """Print a warning, once: one that was shown before a stage may be in its manifest too."""
        if message not in self._warned:
            self._warned.add(message)
            self._console.print(f"    [yellow]![/] {escape(message)}", soft_wrap=True)


def show_plan(stages: Sequence[PlannedStage], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"stage": s.name, "state": s.state, "why": s.why} for s in stages], indent=2))
        return
    table = Table("stage", "plan", "why", box=None, pad_edge=False)
    words = {"reused": "reuse", "run": "run", "planned": "run"}
    for stage in stages:
        table.add_row(stage.name, words[stage.state], stage.why)
    Console().print(table)


def show_result(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_result_json(result), indent=2))
        return
    # Without lines between the columns it fits into 80 characters, and no name is cut.
    table = Table("model", "accuracy", "95 % interval", "size", "p50", "p99", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    single_image = [record for record in result.made.measured.records if record["batch_size"] == 1]
    backend = backends.find(single_image[0]["backend"]) if single_image else None
    latencies = {ModelId.of(record): record for record in single_image if backend and record["backend"] == backend.name}
    for row in result.made.scores.rows:
        name = ModelId.of(row)
        record = latencies.get(name)
        times = [f"{record['latency_ms'][p]:.3f} ms" if record else "-" for p in ("p50", "p99")]
        low, high = row["interval"]
        size = result.made.exported.models[name].graph.stat().st_size
        shown = f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
        table.add_row(row["model"], f"{row['accuracy']:.2%}", f"{low:.1%} to {high:.1%}", shown, *times)
        for title, head in row.get("heads", {}).items():
            low, high = head["interval"]
            table.add_row(f"  {title}", f"{head['accuracy']:.2%}", f"{low:.1%} to {high:.1%}")
    console = Console()
    console.print()
    console.print(table)
    unmeasured = (
        " A dash: the graph is meant for another engine."
        if 0 < len(latencies) < len(result.made.exported.models)
        else ""
    )
    if backend is not None:
        note = f"Latency: one image, measured on this machine in {backend.title}.{unmeasured}"
        console.print(note, style="dim", soft_wrap=True)
    others = [record for record in single_image if record not in latencies.values()]
    built = result.made.engines.records if result.made.engines is not None else []
    for record in (*others, *(record for record in built if record["batch_size"] == 1)):
        console.print(f"{record['model']} in {record['engine']}: p50 {record['latency_ms']['p50']:.3f} ms")
    # Plain print: a path must not be wrapped at the terminal's width.
    sys.stdout.write(f"\nReport  {result.report}\nBundle  {result.bundle}\n")


def show_artifact(artifact: Artifact, folder: Path, *, as_json: bool) -> None:
    place = folder / "bundle" if artifact.kind == "bundle" else artifact.path
    if as_json:
        row = {"path": str(place), "kind": artifact.kind, "digest": artifact.digest, "metrics": artifact.metrics}
        click.echo(json.dumps(row, indent=2))
        return
    sys.stdout.write(f"\n{artifact.kind.capitalize()}  {place}\n")


def _result_json(result: RunResult) -> Json:
    measured = [result.made.measured, *([result.made.engines] if result.made.engines is not None else [])]
    records = [
        {key: value for key, value in record.items() if key != "samples_ms"}
        for each in measured
        for record in each.records
    ]
    return {
        "report": str(result.report),
        "bundle": str(result.bundle),
        "evaluation": result.made.scores.rows,
        "measurements": records,
    }
