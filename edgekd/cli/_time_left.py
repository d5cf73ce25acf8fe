"""How long a stage and the trainings of a run will still take, from the steps that were measured so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgekd.wording import counted

if TYPE_CHECKING:
    from edgekd.store.plan import PlannedTraining

# Seconds over which the present speed is measured, and between two of its readings.
_WINDOW, _BETWEEN = 60.0, 0.5


class TimeLeft:
    """Estimates from a stage's progress, in seconds.

    Args:
        clock: in seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: list[PlannedTraining] = []
        # Seconds, of the last training with a teacher.
        self._epoch: float | None = None
        self._stage, self._done, self._total = "", 0, 0
        self._seen: deque[tuple[float, int]] = deque()

    def expect(self, trainings: Sequence[PlannedTraining]) -> None:
        """The trainings that a run has in front of it; those that are reused end without a progress."""
        self._waiting = list(trainings)

    def begin(self, stage: str) -> None:
        self._stage, self._done = stage, 0
        self._seen.clear()

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or done < self._done:
            self.begin(stage)
        self._done, self._total = done, total
        if len(self._seen) > 1 and self._seen[-1][0] - self._seen[-2][0] < _BETWEEN:
            self._seen.pop()
        self._seen.append((self._clock(), done))
        while len(self._seen) > 2 and self._seen[-1][0] - self._seen[1][0] > _WINDOW:
            self._seen.popleft()
        training, step = self._training(stage), self._step()
        if training is not None and training.teacher and step is not None:
            self._epoch = step * total / training.epochs

    def end(self, stage: str) -> None:
        self._waiting = [each for each in self._waiting if each.name != stage]

    def of_stage(self) -> float | None:
        """Of the present stage; None before a step was measured."""
        step = self._step()
        return None if step is None else step * (self._total - self._done)

    def of_run(self) -> tuple[float, int] | None:
        """Of the present training and those behind it, and the number of those whose speed is not known yet.

        Epochs with a teacher are taken to be as long as the last one; without, the networks differ, and one training
        says nothing about another. None outside of trainings, before a step was measured, and where none follows.
        """
        left = self.of_stage()
        if left is None or self._training(self._stage) is None or len(self._waiting) < 2:
            return None
        others = [each for each in self._waiting if each.name != self._stage]
        known = [each.epochs * self._epoch for each in others if each.teacher and self._epoch is not None]
        return left + sum(known), len(others) - len(known)

    def parts(self) -> list[str]:
        """What is known, in words."""
        stage, run = self.of_stage(), self.of_run()
        found = [f"{duration(stage)} left"] if stage is not None else []
        if run is not None:
            seconds, unknown = run
            more = [counted(unknown, "training")] if unknown else []
            known = [f"run about {duration(seconds)}"] if seconds != stage else []
            found.append(" + ".join(known + more) if known else f"then {more[0]}")
        return found

    def _training(self, stage: str) -> PlannedTraining | None:
        return next((each for each in self._waiting if each.name == stage), None)

    def _step(self) -> float | None:
        if len(self._seen) < 2 or (steps := self._seen[-1][1] - self._seen[0][1]) <= 0:
            return None
        return (self._seen[-1][0] - self._seen[0][0]) / steps


def duration(seconds: float) -> str:
    """Seconds in words, e.g. "45 s", "12 min", "1 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
