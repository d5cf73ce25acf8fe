"""What is known of the input that weights were trained with."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.runtime.preprocess import Fit, Interpolation, Size


@dataclass(frozen=True)
class TrainedInput:
    """The input that weights were trained with; None for what is not known. The names are those of the data section.

    Attributes:
        image_size: height and width, in pixels.
        mean, std: per channel, of values in [0, 1].
        crop_pct: the fraction of height and width that is left of an image in evaluation.
    """

    image_size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    crop_pct: float | None = None
    fit: Fit | None = None

    @property
    def channels(self) -> int | None:
        return len(self.mean) if self.mean is not None else None
