"""What of a GPU decides about the engines that are built on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: as CUDA spells it, e.g. "Orin".
        compute_capability: major and minor, e.g. (8, 7).
        driver: the newest CUDA that the driver supports, e.g. "12.6".
    """

    name: str
    compute_capability: tuple[int, int]
    driver: str

    @property
    def capability(self) -> str:
        """The compute capability as NVIDIA writes it, e.g. "8.7"."""
        return ".".join(map(str, self.compute_capability))

    @property
    def has_int8(self) -> bool:
        """6.1 is the only one before 7.0 that multiplies bytes."""
        return self.compute_capability >= (7, 0) or self.compute_capability == (6, 1)
