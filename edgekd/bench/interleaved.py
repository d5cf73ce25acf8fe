"""Compares models by latency: they take turns in one process, so that a disturbance strikes all of them alike.

`python -m edgekd.bench.interleaved` is the measuring process: a job as JSON on stdin, one line of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgekd.bench.inputs import random_input
from edgekd.bench.measure import require_local
from edgekd.bench.process import ask, check_threads, error_to_json
from edgekd.bench.shapes import plan_inputs
from edgekd.bench.timing import time_calls
from edgekd.devices import profiles
from edgekd.errors import EdgekdError, UsageError
from edgekd.runtime.backends import Array, choose, open_session

_WORKER = (sys.executable, "-m", "edgekd.bench.interleaved")
_LEAST_RUNS = 3


class Comparison(BaseModel):
    """Latencies of several models that took turns.

    Attributes:
        milliseconds: of each model, the median over the rounds of its fastest call.
        ratios: of each model to the first one: the median over the rounds of the ratio within a round.
        spread: of each model, the half width between the quartiles of its ratios.
        backend: what computed them.
        rounds: how often each had its turn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    milliseconds: tuple[float, ...]
    ratios: tuple[float, ...]
    spread: tuple[float, ...]
    backend: str
    rounds: int


class _Job(BaseModel):
    """What the process measures; `paths` are absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[str, ...]
    backend: str
    threads: int | None
    rounds: int
    seconds: float
    batch_size: int | None


def compare_latency(
    files: Sequence[Path],
    *,
    device: str = "this-machine",
    backend: str | None = None,
    threads: int | None = None,
    rounds: int = 15,
    seconds: float = 0.04,
    batch_size: int | None = None,
) -> Comparison:
    """Measure models in turns, in a process of its own, with random inputs.

    Args:
        files: the models; the first is what the others are compared with.
        device: by name; only "this-machine" can be measured.
        backend: by name; None: as edgekd.runtime.load chooses for the first file.
        threads: per operator; None: one per usable core.
        rounds: how often each has its turn, at least 1.
        seconds: length of a turn; a model has at least three calls in each.
        batch_size: images in one call; None: a model's own where it is fixed, else 1.

    Raises:
        UnknownNameError: no such device or backend.
        UsageError: no files, or numbers out of range.
        BenchError: the device is not this machine, a model cannot be measured, or the engine crashed.
        BackendError: no backend is available, or the engine refuses a file.
    """
    require_local(profiles.find(device))
    if not files or rounds < 1 or not 0 < seconds < float("inf"):
        raise UsageError(
            "nothing to compare",
            found=f"{len(files)} files, {rounds} rounds of {seconds} seconds",
            allowed="at least one file, one round, and more than 0 seconds",
        )
    if threads is not None:
        check_threads(threads)
    paths = tuple(str(file.absolute()) for file in files)
    chosen = choose(files[0], backend).name
    job = _Job(paths=paths, backend=chosen, threads=threads, rounds=rounds, seconds=seconds, batch_size=batch_size)
    answer = ask(_WORKER, job.model_dump_json(), model=", ".join(file.name for file in files), backend=chosen)
    return Comparison.model_validate(answer["comparison"])


def _measure(job: _Job) -> Comparison:
    """In this process, which should be a new one. Raises BackendError, BenchError."""
    calls = [_loaded(Path(path), job) for path in job.paths]
    for call in calls:
        time_calls(call, seconds=job.seconds, warmup_seconds=0.1, min_runs=_LEAST_RUNS)
    fastest = np.array([[_turn(call, job.seconds) for call in calls] for _ in range(job.rounds)])
    ratios = fastest / fastest[:, :1]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
    return Comparison(
        milliseconds=tuple((np.median(fastest, axis=0) / 1e6).tolist()),
        ratios=tuple(middle.tolist()),
        spread=tuple(((high - low) / 2).tolist()),
        backend=job.backend,
        rounds=job.rounds,
    )


def _loaded(path: Path, job: _Job) -> Callable[[], Array]:
    session = open_session(path, backend=job.backend, threads=job.threads)
    plan = plan_inputs(session.inputs, session.outputs, batch=job.batch_size)
    arrays = {
        info.name: random_input(plan.shapes[info.name], info.dtype, stream=stream)
        for stream, info in enumerate(session.inputs)
    }
    return session.bind(next(iter(arrays.values())) if len(arrays) == 1 else arrays)


def _turn(call: Callable[[], Array], seconds: float) -> float:
    """The fastest call of a turn, in nanoseconds: what disturbs it only makes it slower."""
    # The first call after another model's finds its data out of the caches.
    call()
    return float(time_calls(call, seconds=seconds, warmup_seconds=0.0, min_runs=_LEAST_RUNS).samples_ns.min())


def main() -> None:
    # Output that an engine prints must not mix with the answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = _Job.model_validate_json(sys.stdin.read())
    try:
        answer = {"comparison": _measure(job).model_dump(mode="json")}
    except EdgekdError as error:
        answer = {"error": error_to_json(error)}
    with answers:
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
