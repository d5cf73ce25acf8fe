"""Notices during a training that other processes have come, and takes fewer threads as long as they stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from edgekd.training.host import Load

# So many steps show how long one takes; so many that take that many times as long are no coincidence.
_USUAL, _SLOW, _SLOWER = 20, 3, 3.0


class AdaptiveThreads:
    """The number of threads of a training, epoch by epoch.

    Args:
        threads: as tuned.
        fixed: whether it is never changed.
        usual: how long a step takes, as it was timed, in seconds; None: as long as the first ones here.
        clock: in seconds, for tests.

    Attributes:
        threads: at present.
    """

    def __init__(
        self,
        threads: int,
        *,
        fixed: bool,
        usual: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.threads = self._tuned = threads
        self._fixed, self._clock = fixed or threads == 1, clock
        self._usual = [] if usual is None else [usual] * _USUAL
        self._load, self._slow, self._last = Load(), 0, clock()

    def begin_epoch(self) -> None:
        """Back to all threads if the cores are free again."""
        if self.threads < self._tuned and self._load.room(self._tuned) == self._tuned:
            self.threads = self._tuned
        self._load, self._slow, self._last = Load(), 0, self._clock()

    def step(self) -> None:
        """To be called after each step; changes PyTorch's number of threads where steps have become slow."""
        now = self._clock()
        taken, self._last = now - self._last, now
        if self._fixed or self.threads < self._tuned:
            return
        if len(self._usual) < _USUAL:
            self._usual.append(taken)
        elif taken < _SLOWER * median(self._usual):
            self._slow = 0
        else:
            self._slow += 1
            if self._slow == 1:
                self._load = Load()
            elif self._slow >= _SLOW and (room := self._load.room(self._tuned)) < self._tuned:
                self._load.tell(self._tuned, room)
                self.threads = room
                torch.set_num_threads(room)
