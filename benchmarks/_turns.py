"""Runs variants of one job in turns, each in a process of its own, so that only one works at a time.

Separate processes, because allocator settings and another tool's interpreter cannot be changed within one. The child
writes a line when it is ready and after every turn; the parent answers "go", or closes the pipe. Standard library only,
because the other tool's interpreter imports this file too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NoReturn

Answer = dict[str, Any]
# What glibc reads at a process's start; the same as edgekd.training.host.keep_freed_memory() sets later.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


class Variant:
    """One child. Started one after the other: each is ready before the next begins.

    Raises:
        RuntimeError: it died; with the end of what it wrote to its error stream.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()
        inherited = {key: value for key, value in os.environ.items() if key not in KEEP_FREED_MEMORY}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**inherited, **environment},
        )
        self.ready = self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def turn(self) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            end = self._errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} stopped with exit code {self._process.returncode}:\n{end}")
        answer: Answer = json.loads(line)
        return answer


def round_robin(variants: Sequence[Variant], rounds: int) -> dict[str, list[Answer]]:
    """Every variant's answers, one per round, after a warm-up round. The order alternates from round to round.

    The variants are closed afterwards.
    """
    found: dict[str, list[Answer]] = {variant.name: [] for variant in variants}
    for number in range(rounds + 1):
        for variant in variants if number % 2 == 0 else reversed(variants):
            answer = variant.turn()
            if number:
                found[variant.name].append(answer)
    for variant in variants:
        variant.close()
    return found


class Turns:
    """The child's end. Everything else that it prints goes to its error stream."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._marks: list[float] = []
        self._figures: Answer = {}

    def next(self, **figures: Any) -> None:
        """Report the last turn's time (before the first turn nothing), and wait for the next; exits after the last."""
        marks, figures = self._marks, {**self._figures, **figures}
        if len(marks) > 1:
            figures["seconds"] = time.perf_counter() - marks[0]
            figures["step_ms"] = 1e3 * median(after - before for before, after in zip(marks, marks[1:], strict=False))
        self._out.write(json.dumps(figures) + "\n")
        self._out.flush()
        if not sys.stdin.readline():
            sys.exit(0)
        self._marks = [time.perf_counter()]

    def step(self, **figures: Any) -> None:
        """One step of the turn is done; `figures` go with the turn's answer."""
        self._marks.append(time.perf_counter())
        self._figures = figures

    def finish(self, **figures: Any) -> NoReturn:
        self.next(**figures)
        sys.exit("more turns were requested than the job has")
