"""Detects a loss that is no longer finite, and exhausted memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from edgekd.errors import NonFiniteLossError, OutOfMemoryError, TrainingError

# Reading a value synchronises a GPU; on a CPU it costs nothing.
_CHECK_EVERY = 50


class Guard:
    """Stops an epoch whose loss or gradient became NaN or infinite."""

    def __init__(self, device: torch.device, epoch: int, *, first_step: int) -> None:
        self._on_cpu = device.type == "cpu"
        self._epoch = epoch
        self._first_step = first_step
        self._first_bad = torch.full((), -1, device=device, dtype=torch.int64)

    def watch(self, step: int, *values: Tensor) -> None:
        """Check the values of a step. Raises NonFiniteLossError; on a GPU up to 50 steps later."""
        if self._on_cpu:
            if not all(math.isfinite(value.item()) for value in values):
                self._first_bad.fill_(step)
                self.check()
            return
        bad = ~torch.stack([value.detach().isfinite() for value in values]).all()
        self._first_bad = torch.where((self._first_bad < 0) & bad, step, self._first_bad)
        if step % _CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raises NonFiniteLossError if any value so far was not finite."""
        step = int(self._first_bad)
        if step >= 0:
            good = f"the state after epoch {self._epoch}" if self._epoch else "none: it happened in the first epoch"
            raise NonFiniteLossError(
                f"the loss is no longer finite at step {self._first_step + step} (epoch {self._epoch + 1})",
                found=f"last good state: {good}",
                hint="lower the learning_rate, lengthen warmup_epochs, set clip_norm, or use precision: fp32",
            )


@contextmanager
def clear_errors(batch_size: int, device: torch.device) -> Iterator[None]:
    """Turns PyTorch's errors for exhausted memory, and for a batch of one image, into ones that name the batch size."""
    try:
        with clear_memory_errors(batch_size, device):
            yield
    except ValueError as error:
        if batch_size > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "a batch norm cannot be trained on batches of one image",
            found=str(error),
            hint="set batch_size to 8 or more, and add images if there is only one",
        ) from None


@contextmanager
def clear_memory_errors(batch_size: int, device: torch.device) -> Iterator[None]:
    """Turns PyTorch's errors for exhausted memory into OutOfMemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        exhausted = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
        if not exhausted:
            raise
        raise OutOfMemoryError(
            f"a batch of {batch_size} does not fit into the memory of {device.type}",
            found=str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
            hint=f"set batch_size to {max(1, batch_size // 2)} or less; finished stages are kept",
        ) from None
