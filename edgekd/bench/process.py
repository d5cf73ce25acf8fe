"""Runs each measurement in a process of its own, and returns its record or an error, even if the engine crashes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from edgekd import errors, plugins
from edgekd.bench.measurement import Measurement, ModelFile
from edgekd.errors import BenchError, EdgekdError, UsageError, whole_number

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
        own_batch: whether a model with a fixed batch size is measured with that one instead.

    Raises:
        UsageError: a number of another type or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_sizes: tuple[int, ...]
    threads: int | None
    seconds: float
    warmup_seconds: float
    input_shape: tuple[int, ...] | None
    own_batch: bool = False

    @field_validator("batch_sizes", "input_shape", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object, info: ValidationInfo) -> tuple[int, ...] | None:
        if value is None and info.field_name == "input_shape":
            return None
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise UsageError(f"{info.field_name} must be a list of whole numbers", found=repr(value))
        return tuple(whole_number(each, f"each of {info.field_name}") for each in value)

    @field_validator("threads", mode="before")
    @classmethod
    def _threads(cls, value: object) -> int | None:
        return None if value is None else whole_number(value, "threads")

    @field_validator("seconds", "warmup_seconds", mode="before")
    @classmethod
    def _seconds(cls, value: object, info: ValidationInfo) -> float:
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= (number := float(value)) < math.inf:
            raise UsageError(f"{info.field_name} must be a number of seconds, at least 0", found=repr(value))
        if not number and info.field_name == "seconds":
            raise UsageError("seconds must be above 0", found=repr(value))
        return number

    @model_validator(mode="after")
    def _shape(self) -> Options:
        shape = self.input_shape
        if shape is not None and shape[0] != 1 and set(self.batch_sizes) != {shape[0]}:
            raise UsageError(
                "the input shape begins with another batch size than the requested one",
                found=f"{shape[0]}, requested {', '.join(map(str, self.batch_sizes))}",
                hint="begin it with 1, and set the batch size with --batch",
            )
        return self


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
