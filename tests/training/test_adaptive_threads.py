"""Threads during a training, by steps whose time a clock makes up and a load that a table gives."""

from __future__ import annotations

import pytest
import torch

from edgekd.training import adaptive_threads
from edgekd.training.adaptive_threads import AdaptiveThreads
from edgekd.training.host import threads


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """Of which others leave so many cores."""

    free, told = 4, 0

    def room(self, count: int) -> int:
        return min(count, self.free)

    def tell(self, count: int, chosen: int) -> None:
        self.told += 1


@pytest.fixture
def machine(monkeypatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(adaptive_threads, "Load", lambda: machine)
    return machine


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _steps(watched: AdaptiveThreads, clock: Clock, count: int, seconds: float) -> None:
    for _ in range(count):
        clock.now += seconds
        watched.step()


def test_slow_steps_on_a_busy_machine_take_a_thread_each_that_has_a_core(machine, clock):
    with threads(4):
        watched = AdaptiveThreads(4, fixed=False, clock=clock)
        watched.begin_epoch()
        _steps(watched, clock, 20, 0.1)
        machine.free = 1
        _steps(watched, clock, 2, 2.0)
        assert watched.threads == torch.get_num_threads() == 4
        _steps(watched, clock, 1, 2.0)
        assert watched.threads == torch.get_num_threads() == 1 and machine.told == 1
        _steps(watched, clock, 30, 2.0)
        watched.begin_epoch()
        assert watched.threads == 1  # still busy
        machine.free = 4
        watched.begin_epoch()
        assert watched.threads == 4


def test_a_training_that_is_resumed_on_a_busy_machine_goes_by_what_was_timed_before(machine, clock):
    machine.free = 1
    with threads(4):
        watched = AdaptiveThreads(4, fixed=False, usual=0.1, clock=clock)
        watched.begin_epoch()
        _steps(watched, clock, 3, 2.0)
        assert watched.threads == 1


@pytest.mark.parametrize(
    ("free", "seconds", "fixed"),
    [(1, 0.25, False), (4, 2.0, False), (1, 2.0, True)],
    ids=["as fast as before", "slow for another reason", "fixed"],
)
def test_otherwise_the_threads_stay(machine, clock, free, seconds, fixed):
    with threads(4):
        watched = AdaptiveThreads(4, fixed=fixed, clock=clock)
        watched.begin_epoch()
        _steps(watched, clock, 20, 0.1)
        machine.free = free
        _steps(watched, clock, 10, seconds)
        assert watched.threads == torch.get_num_threads() == 4 and machine.told == 0


def test_a_pause_now_and_then_is_no_load(machine, clock):
    watched = AdaptiveThreads(4, fixed=False, clock=clock)
    watched.begin_epoch()
    machine.free = 1
    for _ in range(40):
        _steps(watched, clock, 1, 0.1)
        _steps(watched, clock, 2, 2.0 if len(watched._usual) == 20 else 0.1)
    assert watched.threads == 4
    clock.now += 60.0  # validation between two epochs
    watched.begin_epoch()
    _steps(watched, clock, 3, 0.1)
    assert watched.threads == 4
