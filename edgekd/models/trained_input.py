"""What is known of the input that weights were trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def seen_in(self, channels: int) -> TrainedInput:
        """The input with which a network made for RGB is used on greyscale images: normalised by the channels' means.

        Its first convolution gets the sum over the channels (edgekd.models.greyscale). What the network answers is the
        same where all channels have one mean and std, and nearly the same for ImageNet's.

        Args:
            channels: of the images; for any other pair nothing changes.
        """
        if channels != 1 or self.mean is None or self.std is None or len(self.mean) != 3:
            return self
        return replace(self, mean=(sum(self.mean) / 3,), std=(sum(self.std) / 3,))
