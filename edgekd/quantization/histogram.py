"""Histograms of absolute values that do not depend on the order in which the values come.

The bins' width is a power of two: where a larger value comes, bins are merged in pairs, which gives exactly the counts
of the wider bins.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.errors import ModelError

BINS = 4096
# Exponents of two: all that is smaller counts as 0, and what is not below the largest is refused.
_SMALLEST, _LARGEST = -60, 126
# torch counts in float32, which is exact up to this.
_COUNTED_AT_ONCE = 2**24
_ROWS_COUNTED = 32


class Histogram:
    """Counts of a value's absolute elements over batches.

    Args:
        name: of the value, for messages.

    Attributes:
        counts: (BINS,) int64; bin i holds what lies in [i, i + 1) * width. Of a map no more than 32
            rows and columns are counted, evenly spaced: neighbours are alike.
        largest: the largest absolute element of all, counted or not; 0.0 before the first.
        lowest: the lowest element or 0.0, whichever is less.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)
        self.largest = 0.0
        self.lowest = 0.0
        self._exponent = _SMALLEST

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self._exponent) / BINS

    def add(self, values: Tensor) -> None:
        """Count a tensor of any shape.

        Raises:
            ModelError: an element is not finite, or as good as infinite.
        """
        low, high = (float(end) for end in torch.aminmax(_in_memory(values)))
        largest = max(-low, high)
        if not largest < math.ldexp(1.0, _LARGEST):
            raise ModelError(
                f"int8 cannot be calibrated: {self.name} is {largest} on a calibration image",
                allowed="finite values",
                hint="check the checkpoint's weights, or train again with a lower learning rate",
            )
        self.largest, self.lowest = max(self.largest, largest), min(self.lowest, low)
        self._widen(math.frexp(largest)[1])
        top = math.ldexp(1.0, self._exponent)
        shown = values[..., :: _step(values.shape[2]), :: _step(values.shape[3])] if values.ndim == 4 else values
        for part in torch.split(_in_memory(shown if low >= 0 else shown.abs()), _COUNTED_AT_ONCE):
            self.counts += torch.histc(part.float(), BINS, 0.0, top).numpy().astype(np.int64)

    def _widen(self, exponent: int) -> None:
        halvings = exponent - self._exponent
        if halvings <= 0:
            return
        merged = self.counts.reshape(max(BINS >> halvings, 1), -1).sum(1)
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.counts[: len(merged)] = merged
        self._exponent = exponent


def _step(rows: int) -> int:
    return -(-rows // _ROWS_COUNTED)


def _in_memory(values: Tensor) -> Tensor:
    """The elements in the order of memory, which for channels_last is not that of the axes: without a copy."""
    strides = values.stride()
    return values.permute(sorted(range(values.ndim), key=lambda dim: -strides[dim])).reshape(-1)
