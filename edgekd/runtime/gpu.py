"""The properties of a GPU that decide about the engines that are built on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: as CUDA reports it, e.g. "Orin".
        compute_capability: major and minor, e.g. (8, 7).
        driver: the newest CUDA version that the driver supports, e.g. "12.6".
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
        """Whether the GPU has int8 instructions; 6.1 is the only version before 7.0 that does."""
        return self.compute_capability >= (7, 0) or self.compute_capability == (6, 1)
