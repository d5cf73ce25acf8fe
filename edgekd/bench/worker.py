"""The measuring process: `python -m edgekd.bench.worker`, a job as JSON on stdin, one line of JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgekd.bench import sensors
from edgekd.bench.environment import environment
from edgekd.bench.input_file import input_file, read_inputs
from edgekd.bench.inputs import described_values, random_input
from edgekd.bench.measurement import MAX_SAMPLES, Input, Load, Measurement, Memory, Reading, Warmup
from edgekd.bench.process import Job, Options, error_to_json
from edgekd.bench.shapes import Plan, plan_inputs, shown
from edgekd.bench.timing import Timing, summarise, thinned, throttling, time_calls
from edgekd.errors import BenchError, EdgekdError
from edgekd.runtime.backends import Array, Session, open_session
from edgekd.version import __version__

_BUSY_SHARE = 0.1
# Long enough for the kernel's 10 ms clock to register other processes' load.
_WATCH_SECONDS = 0.2


@dataclass(frozen=True)
class _Loaded:
    session: Session
    batch_size: int
    inputs: tuple[Input, ...]
    call: Callable[[], Array]
    load_ms: float
    first_inference_ms: float
    memory: Memory


@dataclass(frozen=True)
class _Watched:
    timing: Timing
    clocks: Reading
    temperatures: Reading
    load: Load


def main() -> None:
    # Output that an engine prints must not mix with the answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = Job.model_validate_json(sys.stdin.read())
    try:
        answer = {"measurement": measure(job).model_dump(mode="json")}
    except EdgekdError as error:
        answer = {"error": error_to_json(error)}
    with answers:
        answers.write(json.dumps(answer) + "\n")


def measure(job: Job) -> Measurement:
    """Load a model, run it once, warm up, and time it, in this process, which should be a new one.

    Raises:
        BackendError: the engine cannot load the model.
        BenchError: the model cannot be measured; see plan_inputs() and read_inputs().
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    loaded = _load(job)
    watched = _watch(job, loaded)
    return _record(job, loaded, watched, started)


def _load(job: Job) -> _Loaded:
    baseline, _ = sensors.resident_bytes()
    begin = time.perf_counter_ns()
    session = open_session(Path(job.target.path), backend=job.target.backend, threads=job.options.threads)
    load_ms = _ms_since(begin)
    loaded, _ = sensors.resident_bytes()
    plan, arrays = _planned(job, session)
    call = _bound(session, arrays)
    begin = time.perf_counter_ns()
    _first_run(call, session, arrays, job.options)
    first_ms = _ms_since(begin)
    memory = Memory(baseline_bytes=baseline, loaded_bytes=loaded, peak_bytes=None)
    return _Loaded(session, plan.batch, _recorded(session, arrays, job.options), call, load_ms, first_ms, memory)


def _planned(job: Job, session: Session) -> tuple[Plan, dict[str, Array]]:
    """The shapes of the inputs, and the inputs: from the job's file, or random."""
    inputs, outputs, options = session.inputs, session.outputs, job.options
    if options.input_file is not None:
        arrays = read_inputs(Path(options.input_file), inputs)
        return plan_inputs(inputs, outputs, shapes={name: each.shape for name, each in arrays.items()}), arrays
    sizes = options.batch_sizes or (None,)
    plans = {size: plan_inputs(inputs, outputs, batch=size, shapes=options.input_shape) for size in sizes}
    plan = plans[job.batch_size]
    return plan, _random(session, plan)


def _random(session: Session, plan: Plan) -> dict[str, Array]:
    try:
        return {
            info.name: random_input(plan.shapes[info.name], info.dtype, stream=stream)
            for stream, info in enumerate(session.inputs)
        }
    except (MemoryError, ValueError) as error:  # NumPy has no shapes of 2^63 values or more
        raise BenchError(
            "the inputs do not fit into memory",
            found=", ".join(f"{name} {shown(shape)}" for name, shape in plan.shapes.items()),
            hint="measure with a smaller batch or shape: --batch, --input-shape",
        ) from error


def _bound(session: Session, arrays: dict[str, Array]) -> Callable[[], Array]:
    # A backend from outside may know models with one input only.
    return session.bind(next(iter(arrays.values())) if len(arrays) == 1 else arrays)


def _recorded(session: Session, arrays: dict[str, Array], options: Options) -> tuple[Input, ...]:
    return tuple(
        Input(
            name=info.name,
            shape=(shape := arrays[info.name].shape),
            dtype=info.dtype,
            values=described_values(shape, info.dtype) if options.input_file is None else "from the file",
        )
        for info in session.inputs
    )


def _first_run(call: Callable[[], Array], session: Session, arrays: dict[str, Array], options: Options) -> None:
    try:
        call()
    except Exception as error:  # engines' exceptions have no common base class
        shapes = ", ".join(f"{name} {shown(array.shape)}" for name, array in arrays.items()) or "no input"
        random = options.input_file is None
        raise BenchError(
            f"{session.engine} loads the model but cannot run it on {shapes}",
            found=(str(error).splitlines() or [type(error).__name__])[0][:300],
            hint="try another batch size or input shape (--batch, --input-shape), or real values (--input)"
            if random
            else "give inputs that the model was made for",
        ) from error


def _watch(job: Job, loaded: _Loaded) -> _Watched:
    average, before = sensors.load_average(), sensors.cpu_times()
    time.sleep(_WATCH_SECONDS)
    clocks, temperatures = sensors.clocks_mhz(), sensors.temperatures_c()
    timing = time_calls(loaded.call, seconds=job.options.seconds, warmup_seconds=job.options.warmup_seconds)
    return _Watched(
        timing,
        Reading(before=clocks, after=sensors.clocks_mhz()),
        Reading(before=temperatures, after=sensors.temperatures_c()),
        Load(
            average_1min=round(average, 2),
            others_share=round(sensors.others_share(before, sensors.cpu_times()), 3),
        ),
    )


def _record(job: Job, loaded: _Loaded, watched: _Watched, started: str) -> Measurement:
    timing, session = watched.timing, loaded.session
    _, peak = sensors.resident_bytes()
    memory = loaded.memory.model_copy(update={"peak_bytes": peak})
    env = environment()
    runs = len(timing.samples_ns)
    samples, every = thinned(timing.samples_ns, MAX_SAMPLES)
    return Measurement(
        target=job.target.name,
        variant=job.target.variant,
        backend=job.target.backend,
        engine=session.engine,
        device=job.device,
        runs_on=session.device,
        provenance="measured" if env.emulated is None else "emulated",
        file=job.target.file,
        batch_size=loaded.batch_size,
        threads=job.options.threads or env.cores,
        inputs=loaded.inputs,
        input_file=input_file(Path(source)) if (source := job.options.input_file) is not None else None,
        transfer_mode="host" if session.device == "cpu" else "included",
        cuda_graph=None,
        warmup=Warmup(runs=timing.warmup_runs, seconds=round(timing.warmup_seconds, 6)),
        runs=runs,
        seconds=round(timing.seconds, 6),
        latency_ms=summarise(timing.samples_ns),
        samples_ms=samples,
        samples_every=every,
        throughput_per_s=round(loaded.batch_size * runs / timing.seconds, 3),
        load_ms=loaded.load_ms,
        first_inference_ms=loaded.first_inference_ms,
        memory=memory,
        energy_mj=None,
        power_mode=env.power_mode,
        clocks_mhz=watched.clocks,
        temperatures_c=watched.temperatures,
        throttling=throttling(timing.samples_ns),
        load=watched.load,
        busy=watched.load.others_share > _BUSY_SHARE,
        unavailable=_unavailable(env.power_mode, watched, memory),
        environment=env,
        harness=f"edgekd {__version__}",
        started=started,
    )


def _unavailable(power_mode: str | None, watched: _Watched, memory: Memory) -> dict[str, str]:
    reasons = {
        "energy_mj": (None, "this version does not read power sensors"),
        "cuda_graph": (None, "this version does not use CUDA graphs"),
        "power_mode": (power_mode, "nvpmodel does not respond: not a Jetson, or it is not on the PATH"),
        "clocks_mhz": (watched.clocks.before, "the kernel does not report clock rates"),
        "temperatures_c": (watched.temperatures.before, "the kernel has no thermal zone and no sensor chip"),
        "memory": (memory.peak_bytes, "/proc/self/status has no VmHWM"),
    }
    return {name: reason for name, (value, reason) in reasons.items() if value is None}


def _ms_since(begin_ns: int) -> float:
    return round((time.perf_counter_ns() - begin_ns) / 1e6, 3)


if __name__ == "__main__":
    main()
