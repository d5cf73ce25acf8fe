"""A run in the terminal: one line per finished stage, and a progress bar for the running one."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from edgekd import units
from edgekd.cli._budget import show_planned, show_verdict
from edgekd.cli._progress import Line
from edgekd.cli._time_left import TimeLeft, duration
from edgekd.export.model_id import ModelId
from edgekd.runtime import backends
from edgekd.runtime.statistics import score_of

if TYPE_CHECKING:  # the store brings packages that a device does not have
    from edgekd.pipeline import RunResult
    from edgekd.store.artifacts import Artifact, Json
    from edgekd.store.plan import PlannedStage, PlannedTraining
    from edgekd.store.store import Done

# Columns that a text needs to be indented.
_LEAST_TEXT = 24


class Terminal:
    """A Listener and a Console that print to stderr; progress is a bar in a terminal, else a line now and then.

    Args:
        quiet: print nothing.
        every: seconds between lines of progress that is no terminal's.
    """

    def __init__(self, *, quiet: bool, every: float = 15.0) -> None:
        self._every, self._last = every, time.monotonic()
        self._running: tuple[str, float] | None = None
        self._still = _Every(every, self._still_running)
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._said: set[str] = set()
        self._left = TimeLeft()
        self._bars = Progress(
            Line(self._console, self._left),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bars.add_task("", visible=False, note="")
        self._logged = _Logged(self)

    def __enter__(self) -> Terminal:
        self._logged.open()
        self._bars.start()
        if not self._console.is_terminal:
            self._still.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._still.stop()
        self._logged.close()

    def expect(self, trainings: Sequence[PlannedTraining]) -> None:
        self._left.expect(trainings)

    def begin(self, stage: str) -> None:
        self._left.begin(stage)
        self._running = (stage, time.monotonic())
        # A new one: rich keeps the total of one that is reset.
        self._bars.remove_task(self._task)
        self._task = self._bars.add_task(stage, total=None, note="")
        if not self._console.is_terminal:
            self._console.print(f"  … {stage}")
            self._last = time.monotonic()

    def progress(self, stage: str, done: int, total: int, note: str) -> None:
        if self._running is None:  # a stage within this one has ended
            self._running = (stage, time.monotonic())
        self._left.progress(stage, done, total)
        self._bars.update(self._task, description=stage, completed=done, total=total, note=note, visible=True)
        if not self._console.is_terminal and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            parts = [note, f"{done:,} of {total:,}", *self._left.parts()]
            self._console.print(f"    {stage}: {escape(', '.join(parts))}", soft_wrap=True)

    def _still_running(self) -> None:
        """Print a line about a stage that has not reported anything for a while."""
        now, running = time.monotonic(), self._running
        if running is not None and now - self._last >= 1.5 * self._every:
            self._last = now
            self._console.print(f"    {running[0]}: running for {duration(now - running[1])}", soft_wrap=True)

    def end(self, done: Done) -> None:
        self._left.end(done.name)
        self._running = None
        self._bars.update(self._task, visible=False)
        mark = ("✓", "green") if done.state == "run" else ("=", "dim")
        cost = f"{done.seconds:7.1f} s" if done.state == "run" else "   reused"
        print_hanging(self._console, Text.assemble("  ", mark, f" {done.name:<25} {cost}   "), ", ".join(done.facts))
        for warning in done.artifact.metrics.get("warnings", ()):
            self.warn(warning)

    def warn(self, message: str) -> None:
        """Print a warning, once: one that was shown before a stage may be in its manifest too."""
        self._say(("!", "yellow"), message)

    def note(self, message: str) -> None:
        """Print what is worth knowing, once."""
        self._say(("·", "dim"), message)

    def _say(self, mark: tuple[str, str], message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            print_hanging(self._console, Text.assemble("    ", mark, " "), message)


def print_hanging(console: Console, lead: Text, text: str) -> None:
    """Print a text behind its lead: in a terminal broken between words and indented to where it began.

    In a file it is one line, whatever its length; and in a terminal without room for it, broken by the terminal.
    """
    if not console.is_terminal or console.width - lead.cell_len < _LEAST_TEXT:
        console.print(lead + Text(text), soft_wrap=True)
        return
    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(lead, Text(text))
    console.print(grid)


class _Every:
    """Calls a function again and again in a thread of its own; never where the interval is 0."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self._seconds, self._call, self._stopped = seconds, call, threading.Event()

    def start(self) -> None:
        if self._seconds > 0:
            threading.Thread(target=self._loop, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _loop(self) -> None:
        while not self._stopped.wait(self._seconds / 2):
            self._call()


class _Logged(logging.Handler):
    """Shows what edgekd logs, e.g. about a busy machine, in a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.INFO)
        self._terminal = terminal
        self._logger = logging.getLogger("edgekd")
        self._before = self._logger.level

    def open(self) -> None:
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._before)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        show = self._terminal.warn if record.levelno >= logging.WARNING else self._terminal.note
        show(record.getMessage())


def show_plan(stages: Sequence[PlannedStage], judged: Sequence[str] = (), *, as_json: bool) -> None:
    """A plan, and what of the budget is judged behind its stages."""
    if as_json:
        rows = [{"stage": s.name, "state": s.state, "why": s.why} for s in stages]
        rows += [{"stage": "budget", "state": "judged", "why": bound} for bound in judged]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("stage", "plan", "why", box=None, pad_edge=False)
    words = {"reused": "reuse", "run": "run", "planned": "run"}
    for stage in stages:
        table.add_row(stage.name, words[stage.state], stage.why)
    Console().print(table)
    if judged:
        show_planned(judged)


def show_result(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_result_json(result), indent=2))
        return
    # Without lines between the columns it fits into 80 characters, and no name is cut.
    measure = result.made.data.measure
    table = Table("model", measure, "95 % interval", "size", "p50", "p99", box=None, pad_edge=False)
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
        shown = units.size(result.made.exported.models[name].graph.stat().st_size)
        table.add_row(row["model"], f"{score_of(row):.2%}", f"{low:.1%} to {high:.1%}", shown, *times)
        for title, head in row.get("heads", {}).items():
            low, high = head["interval"]
            table.add_row(f"  {title}", f"{head['accuracy']:.2%}", f"{low:.1%} to {high:.1%}")
    console = Console()
    console.print()
    console.print(table)
    if measure == "agreement":
        note = "Agreement: how often a file answers as the student in fp32. No labels were given."
        console.print(note, style="dim", soft_wrap=not console.is_terminal)
    unmeasured = (
        " A dash: the graph is meant for another engine."
        if 0 < len(latencies) < len(result.made.exported.models)
        else ""
    )
    if backend is not None:
        emulated = any(record["provenance"] == "emulated" for record in single_image)
        place = "timed on an emulated processor" if emulated else "measured on this machine"
        note = f"Latency: one image, {place} in {backend.title}.{unmeasured}"
        console.print(note, style="dim", soft_wrap=not console.is_terminal)
    others = [record for record in single_image if record not in latencies.values()]
    built = result.made.engines.records if result.made.engines is not None else []
    for record in (*others, *(record for record in built if record["batch_size"] == 1)):
        console.print(f"{record['model']} in {record['engine']}: p50 {record['latency_ms']['p50']:.3f} ms")
    for title, reason in result.decisions.items():
        print_hanging(console, Text("Default "), f"{title}: {reason}.")
    if result.budget is not None:
        show_verdict(result.budget, measure)
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
        "decisions": result.decisions,
        "budget": result.budget.model_dump(mode="json") if result.budget is not None else None,
    }
