"""The timing loop, and statistics of its samples."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from edgekd.bench.measurement import Latency, Throttling

Samples = npt.NDArray[np.int64]

_SLOWER = 0.03


@dataclass(frozen=True)
class Timing:
    """The result of the timing loop.

    Attributes:
        samples_ns: (runs,) duration of each call, nanoseconds, in order.
        seconds: length of the whole loop.
    """

    samples_ns: Samples
    seconds: float
    warmup_runs: int
    warmup_seconds: float


def time_calls(
    call: Callable[[], object],
    *,
    seconds: float,
    warmup_seconds: float,
    min_runs: int = 20,
    max_runs: int = 1_000_000,
) -> Timing:
    """Call repeatedly for `seconds`, after a warm-up; only `call()` is timed.

    Args:
        call: the function to time.
        seconds: length of the timed loop.
        warmup_seconds: length of the warm-up.
        min_runs: continue past `seconds` until there are this many runs.
        max_runs: stop after this many runs; memory for them is allocated before the loop.
    """
    storage: Samples = np.empty(max_runs, dtype=np.int64)
    with _no_collection():
        warmup_runs, warmup = _warm_up(call, warmup_seconds)
        clock = perf_counter_ns
        runs = 0
        begin = stop = clock()
        deadline = begin + int(seconds * 1e9)
        while runs < max_runs and (runs < min_runs or stop < deadline):
            start = clock()
            call()
            stop = clock()
            storage[runs] = stop - start
            runs += 1
    return Timing(storage[:runs].copy(), (stop - begin) / 1e9, warmup_runs, warmup)


def summarise(samples_ns: Samples) -> Latency:
    """Statistics in milliseconds; percentile p of n sorted values is interpolated linearly at index p/100 * (n - 1).

    `std` is the population standard deviation.
    """
    ms = samples_ns / 1e6
    p50, p90, p95, p99 = (round(float(value), 6) for value in np.percentile(ms, (50, 90, 95, 99)))
    low, mean, high, std = (round(float(value), 6) for value in (ms.min(), ms.mean(), ms.max(), ms.std()))
    return Latency(min=low, mean=mean, p50=p50, p90=p90, p95=p95, p99=p99, max=high, std=std)


def throttling(samples_ns: Samples) -> Throttling:
    """Compare the median of the last third with that of the first; more than 3 % slower is flagged as throttling."""
    third = max(1, len(samples_ns) // 3)
    first = float(np.median(samples_ns[:third])) / 1e6
    last = float(np.median(samples_ns[-third:])) / 1e6
    share = round(last / first - 1.0, 6)
    return Throttling(
        first_third_p50=round(first, 6),
        last_third_p50=round(last, 6),
        slower_share=share,
        flagged=share > _SLOWER,
    )


def thinned(samples_ns: Samples, most: int) -> tuple[list[float], int]:
    """Every n-th sample in milliseconds, rounded to 1e-5, and n: the smallest with at most `most` samples."""
    every = -(-len(samples_ns) // most)
    return [round(value / 1e6, 5) for value in samples_ns[::every].tolist()], every


def _warm_up(call: Callable[[], object], seconds: float) -> tuple[int, float]:
    runs = 0
    begin = now = perf_counter_ns()
    deadline = begin + int(seconds * 1e9)
    while now < deadline:
        call()
        runs += 1
        now = perf_counter_ns()
    return runs, (now - begin) / 1e9


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disables Python's garbage collector, whose runs would appear as outliers."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
