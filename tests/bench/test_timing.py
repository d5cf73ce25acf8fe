from __future__ import annotations

import gc

import numpy as np
import pytest

from edgekd.bench.timing import summarise, thinned, throttling, time_calls


def ms(*values: float) -> np.ndarray:
    return np.rint(np.array(values) * 1e6).astype(np.int64)


def test_percentiles_of_one_to_a_hundred_and_one():
    # p of 101 values is at index p: the value p + 1.
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 102))
    latency = summarise(ms(*shuffled))
    assert (latency.min, latency.p50, latency.p90, latency.p95, latency.p99, latency.max) == (1, 51, 91, 96, 100, 101)
    assert latency.mean == 51
    assert latency.std == pytest.approx(((101**2 - 1) / 12) ** 0.5, abs=1e-5)


def test_percentiles_between_ranks():
    # Index 0.9 * 3 = 2.7 lies between 3 and 4.
    latency = summarise(ms(4, 2, 1, 3))
    assert (latency.p50, latency.p90, latency.p95, latency.p99) == pytest.approx((2.5, 3.7, 3.85, 3.97))


def test_one_sample_is_every_percentile():
    latency = summarise(ms(7))
    assert {latency.min, latency.p50, latency.p99, latency.max} == {7}
    assert latency.std == 0


@pytest.mark.parametrize("last, flagged", [(1.0, False), (1.03, False), (1.031, True), (0.5, False)])
def test_throttling_is_flagged_above_three_percent(last, flagged):
    found = throttling(ms(*[1.0] * 100, *[9.0] * 100, *[last] * 100))
    assert found.flagged is flagged
    assert found.slower_share == pytest.approx(last - 1.0, abs=1e-6)


def test_one_outlier_is_not_throttling():
    assert not throttling(ms(*[1.0] * 299, 500.0)).flagged


@pytest.mark.parametrize("count, every, kept", [(1, 1, 1), (10, 1, 10), (11, 2, 6), (30, 3, 10)])
def test_thinning_keeps_at_most_what_is_allowed(count, every, kept):
    samples, step = thinned(ms(*range(count)), 10)
    assert (step, len(samples)) == (every, kept)
    assert samples == [float(value) for value in range(0, count, every)]


def test_at_least_and_at_most_so_many_runs():
    calls = []
    few = time_calls(lambda: calls.append(1), seconds=0.0, warmup_seconds=0.0, min_runs=7)
    assert (len(few.samples_ns), few.warmup_runs, len(calls)) == (7, 0, 7)
    many = time_calls(lambda: None, seconds=60.0, warmup_seconds=0.0, max_runs=9)
    assert len(many.samples_ns) == 9


def test_warm_up_is_not_among_the_samples_and_the_loop_holds_them_all():
    calls = []
    timing = time_calls(lambda: calls.append(1), seconds=0.01, warmup_seconds=0.01)
    assert timing.warmup_runs > 0
    assert len(calls) == timing.warmup_runs + len(timing.samples_ns)
    assert timing.seconds >= 0.01
    assert 0 < timing.samples_ns.sum() / 1e9 <= timing.seconds


def test_the_collector_rests_during_the_loop_and_comes_back_after_a_failure():
    seen = []
    time_calls(lambda: seen.append(gc.isenabled()), seconds=0.0, warmup_seconds=0.0)
    assert not any(seen)
    with pytest.raises(ZeroDivisionError):
        time_calls(lambda: 1 / 0, seconds=0.0, warmup_seconds=0.0)
    assert gc.isenabled()
