"""Runs each measurement in a process of its own, and returns its record or an error, even if the engine crashes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from edgekd import errors, plugins
from edgekd.bench.measurement import Measurement, ModelFile
from edgekd.errors import BenchError, EdgekdError, UsageError

_PLACE = Path(__file__).parents[2]
_WORKER = (sys.executable, "-m", "edgekd.bench.worker")


class Target(BaseModel):
    """A file to measure, and the backend that opens it; `path` is absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    variant: str | None
    path: str
    file: ModelFile
    backend: str


class Options(BaseModel):
    """How a target is measured; see edgekd.bench.measure.benchmark.

    Attributes:
        batch_sizes: all that will be measured, so that the first job detects a batch size that does not fit.
        input_shape: with the batch dimension; None if the model's own shape is fixed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_sizes: tuple[int, ...]
    threads: int | None
    seconds: float
    warmup_seconds: float
    input_shape: tuple[int, ...] | None

    def check(self) -> None:
        """Raises UsageError: a number out of range."""
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UsageError("batch sizes must be whole numbers of at least 1", found=list(self.batch_sizes))
        if self.threads is not None and self.threads < 1:
            raise UsageError("threads must be a whole number of at least 1", found=self.threads)
        if not (0 < self.seconds < math.inf and 0 <= self.warmup_seconds < math.inf):
            raise UsageError(
                "seconds must be above 0, and warmup_seconds at least 0",
                found=f"{self.seconds} s after {self.warmup_seconds} s of warm-up",
            )
        if self.input_shape is not None:
            self._check_shape(self.input_shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if not shape or min(shape) < 1:
            raise UsageError("an input shape must have whole numbers of at least 1", found=list(shape))
        if shape[0] != 1 and set(self.batch_sizes) != {shape[0]}:
            raise UsageError(
                "the input shape begins with another batch size than the requested one",
                found=f"{shape[0]}, requested {', '.join(map(str, self.batch_sizes))}",
                hint="begin it with 1, and set the batch size with --batch",
            )


class Job(BaseModel):
    """A worker's task: one target at one of the options' batch sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    device: str
    batch_size: int
    options: Options


def run_job(job: Job, *, command: Sequence[str] = _WORKER) -> Measurement:
    """Measure in a fresh process.

    Args:
        job: what to measure.
        command: the worker, which reads a job as JSON from stdin and writes one line of JSON to stdout.

    Raises:
        BenchError: the worker died, or the model cannot be measured.
        EdgekdError: an error that the worker raised, of the same class.
    """
    # Not in the current folder, where `python -m` would import any file, a random.py for example.
    worker = subprocess.run(
        command,
        input=job.model_dump_json(),
        capture_output=True,
        text=True,
        cwd=_PLACE,
        env={
            **os.environ,
            **plugins.environment(),
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
        },
        check=False,
    )
    if worker.returncode != 0:
        _raise_death(job, worker.returncode, worker.stderr)
    answer = json.loads(worker.stdout)
    if "error" in answer:
        raise error_from_json(answer["error"])
    return Measurement.model_validate(answer["measurement"])


def error_to_json(error: EdgekdError) -> dict[str, str | None]:
    texts = {"found": error.found, "allowed": error.allowed}
    return {
        "class": type(error).__name__,
        "what": error.what,
        "hint": error.hint,
        **{name: None if value is None else str(value) for name, value in texts.items()},
    }


def error_from_json(value: dict[str, Any]) -> EdgekdError:
    """The inverse of error_to_json(): an error of the same class, or an EdgekdError if errors.py lacks the class."""
    found = getattr(errors, value["class"], None)
    kind = found if isinstance(found, type) and issubclass(found, EdgekdError) else EdgekdError
    # Not through __init__: some classes build their text from other arguments.
    error = kind.__new__(kind)
    EdgekdError.__init__(error, value["what"], found=value["found"], allowed=value["allowed"], hint=value["hint"])
    return error


def _raise_death(job: Job, code: int, stderr: str) -> NoReturn:
    last = (stderr.strip().splitlines() or [""])[-1]
    if code > 0:
        raise BenchError(f"measuring {job.target.name} failed", found=last or f"exit code {code}")
    name = signal.Signals(-code).name
    hint = "the system may have run out of memory: try a smaller batch" if name == "SIGKILL" else None
    raise BenchError(
        f"{job.target.backend} crashed while measuring {job.target.name}",
        found=f"{name}{': ' + last if last else ''}",
        hint=hint or "try another engine (--backend) or another version of this one",
    )
