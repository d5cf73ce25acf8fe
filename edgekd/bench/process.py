"""Runs each measurement in a process of its own, and returns its record or an error, even if the engine crashes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from edgekd import errors
from edgekd.bench.measurement import Measurement, ModelFile
from edgekd.bench.shapes import ONLY
from edgekd.errors import BenchError, EdgekdError, UsageError, whole_number
from edgekd.runtime.child import child_environment, signal_name
from edgekd.runtime.cores import cpu_quota, usable_cores

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
        batch_sizes: all that will be measured, so that the first job detects a batch size that does not fit; None: the
            model's own, or 1.
        threads: per operator; None: one per usable core.
        input_shape: whole shapes by the input's name, or under shapes.ONLY.
        input_file: absolute; None: random values.

    Raises:
        UsageError: a number of another type or out of range, or options that exclude each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_sizes: tuple[int, ...] | None
    threads: int | None
    seconds: float
    warmup_seconds: float
    input_shape: dict[str, tuple[int, ...]] = {}
    input_file: str | None = None

    @field_validator("batch_sizes", mode="before")
    @classmethod
    def _batch_sizes(cls, value: object) -> tuple[int, ...] | None:
        return None if value is None else _whole_numbers(value, "batch_sizes")

    @field_validator("input_shape", mode="before")
    @classmethod
    def _input_shape(cls, value: object) -> dict[str, tuple[int, ...]]:
        if value is None:
            return {}
        shapes = value if isinstance(value, Mapping) else {ONLY: value}
        return {str(name): _whole_numbers(shape, "input_shape") for name, shape in shapes.items()}

    @field_validator("threads", mode="before")
    @classmethod
    def _threads(cls, value: object) -> int | None:
        return None if value is None else check_threads(value)

    @field_validator("seconds", "warmup_seconds", mode="before")
    @classmethod
    def _seconds(cls, value: object, info: ValidationInfo) -> float:
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= (number := float(value)) < math.inf:
            raise UsageError(f"{info.field_name} must be a number of seconds, at least 0", found=repr(value))
        if not number and info.field_name == "seconds":
            raise UsageError("seconds must be above 0", found=repr(value))
        return number

    @model_validator(mode="after")
    def _one_source(self) -> Options:
        if self.input_file is not None and (self.batch_sizes is not None or self.input_shape):
            raise UsageError(
                "the arrays of an input file have their shapes and batch size",
                found="a batch size" if self.batch_sizes is not None else "an input shape",
                hint="leave --batch and --input-shape out, or --input",
            )
        return self


def check_threads(value: object, *, name: str = "threads") -> int:
    """`value` as a number of threads that this machine can run at once.

    Raises:
        UsageError: not a whole number of at least 1, or more than there are cores: threads that wait for a core of
            each other's make latencies that are neither the model's nor the machine's.
    """
    threads, cores = whole_number(value, name), usable_cores()
    if threads > cores:
        quota = cpu_quota()
        raise UsageError(
            f"{name}: {threads} are more threads than this process has cores",
            found=f"{cores} usable of {os.cpu_count()}" + (f", a CPU quota of {quota:g}" if quota is not None else ""),
            allowed=f"1 to {cores}" if cores > 1 else "1",
            hint="leave the number out for one thread per usable core",
        )
    return threads


def _whole_numbers(value: object, name: str) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise UsageError(f"{name} must be a list of whole numbers", found=repr(value))
    return tuple(whole_number(each, f"each of {name}") for each in value)


class Job(BaseModel):
    """A worker's task: one target at one of the options' batch sizes, None for the model's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    device: str
    batch_size: int | None
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
    measurement: Measurement = Measurement.model_validate(
        ask(command, job.model_dump_json(), model=job.target.name, backend=job.target.backend)["measurement"]
    )
    return measurement


def ask(command: Sequence[str], request: str, *, model: str, backend: str) -> dict[str, Any]:
    """The answer of a fresh process.

    Args:
        command: the worker, which reads the request from stdin and writes one line of JSON to stdout.
        request: JSON.
        model, backend: what it measures and by what, for messages.

    Raises:
        BenchError: the worker died.
        EdgekdError: an error that the worker raised, of the same class.
    """
    # Not in the current folder, where `python -m` would import any file, a random.py for example.
    worker = subprocess.run(
        command,
        input=request,
        capture_output=True,
        text=True,
        cwd=_PLACE,
        env=child_environment(),
        check=False,
    )
    if worker.returncode != 0:
        _raise_death(model, backend, worker.returncode, worker.stderr)
    answer: dict[str, Any] = json.loads(worker.stdout)
    if "error" in answer:
        raise error_from_json(answer["error"])
    return answer


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


def _raise_death(model: str, backend: str, code: int, stderr: str) -> NoReturn:
    last = (stderr.strip().splitlines() or [""])[-1]
    if code > 0:
        raise BenchError(f"measuring {model} failed", found=last or f"exit code {code}")
    name = signal_name(code)
    hint = "the system may have run out of memory: try a smaller batch" if name == "SIGKILL" else None
    raise BenchError(
        f"{backend} crashed while measuring {model}",
        found=f"{name}{': ' + last if last else ''}",
        hint=hint or "try another engine (--backend) or another version of this one",
    )
