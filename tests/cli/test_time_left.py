"""How long stages and runs will still take."""

from __future__ import annotations

import pytest

from edgekd.cli._time_left import TimeLeft, duration
from edgekd.store.plan import PlannedTraining

TRAININGS = [
    PlannedTraining("teacher", 12, False),
    PlannedTraining("distill", 14, True),
    PlannedTraining("recover", 7, True),
    PlannedTraining("tasks", 3, False),
]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def left(clock: Clock) -> TimeLeft:
    estimates = TimeLeft(clock)
    estimates.expect(TRAININGS)
    return estimates


def _train(left: TimeLeft, clock: Clock, stage: str, steps: int, total: int, seconds: float) -> None:
    """So many steps, each as long as given."""
    left.begin(stage)
    for done in range(1, steps + 1):
        left.progress(stage, done, total)
        clock.now += seconds if done < steps else 0.0


def test_nothing_is_shown_before_a_step_was_measured(left, clock):
    assert left.parts() == []
    left.begin("teacher")
    left.progress("teacher", 1, 120)
    assert left.parts() == []


def test_a_training_says_nothing_about_another_network(left, clock):
    _train(left, clock, "teacher", 20, 120, seconds=1.5)
    assert left.of_stage() == pytest.approx(150.0) and left.of_run() == (pytest.approx(150.0), 3)
    assert left.parts() == ["2 min left", "then 3 trainings"]


def test_trainings_with_a_teacher_are_estimated_by_the_last_one(left, clock):
    _train(left, clock, "teacher", 120, 120, seconds=1.5)
    left.end("teacher")
    _train(left, clock, "distill", 21, 140, seconds=6.0)
    # 119 steps of 6 s; 7 epochs of 10 steps; the other one is not known.
    assert left.of_run() == (pytest.approx(119 * 6.0 + 70 * 6.0), 1)
    assert left.parts() == ["12 min left", "run about 19 min + 1 training"]
    left.end("distill")
    left.end("tasks")  # reused
    _train(left, clock, "recover", 11, 70, seconds=3.0)
    assert left.of_run() is None and left.parts() == ["3 min left"]


def test_a_resumed_training_is_measured_from_where_it_goes_on(left, clock):
    left.begin("teacher")
    for done in (101, 102, 103):
        left.progress("teacher", done, 120)
        clock.now += 2.0
    assert left.of_stage() == pytest.approx(17 * 2.0)


def test_the_speed_is_that_of_the_last_minute(left, clock):
    _train(left, clock, "teacher", 100, 1000, seconds=5.0)
    for done in range(101, 301):
        clock.now += 1.0
        left.progress("teacher", done, 1000)
    assert left.of_stage() == pytest.approx(700.0, rel=0.02)


def test_other_stages_have_no_estimate_for_the_run(left, clock):
    _train(left, clock, "calibrate", 5, 10, seconds=1.0)
    assert left.parts() == ["5 s left"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3570.0, "1 h"), (5000.0, "1 h 23 min"), (90_000.0, "25 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
