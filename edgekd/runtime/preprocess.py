"""From an image to network input: one implementation for the workstation and the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Interpolation = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """How the network sees an image: its centre square scaled to `resize`, a centre crop, RGB in [0, 1], mean and std.

    Attributes:
        image_size: side of the square input, in pixels.
        resize: side of the square that the image's centre square is scaled to before the crop, in pixels.
        mean, std: per colour channel, of values in [0, 1].
        interpolation: of the scaling.
        background: RGB, 0 to 255, behind transparent pixels.
        white: the value that is white in greyscale images of more than 8 bits or of float values.
    """

    image_size: int
    resize: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    background: tuple[int, int, int] = (255, 255, 255)
    white: float = 65535.0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        """The inverse of to_json(). Raises KeyError, TypeError or ValueError for a missing or wrong field.

        A file of an earlier version has neither background nor white: it gets the defaults.
        """
        red, green, blue = (float(number) for number in value["mean"])
        red_std, green_std, blue_std = (float(number) for number in value["std"])
        if value["interpolation"] not in _RESAMPLING:
            raise ValueError(f"unknown interpolation {value['interpolation']!r}")
        behind = (int(number) for number in value.get("background", cls.background))
        red_behind, green_behind, blue_behind = behind
        return cls(
            image_size=int(value["image_size"]),
            resize=int(value["resize"]),
            mean=(red, green, blue),
            std=(red_std, green_std, blue_std),
            interpolation=value["interpolation"],
            background=(red_behind, green_behind, blue_behind),
            white=float(value.get("white", cls.white)),
        )

    def to_json(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def pixels(self, image: Image.Image) -> Pixels:
        """One image as (image_size, image_size, 3) uint8."""
        return centre_crop(self.square(image), self.image_size)

    def square(self, image: Image.Image) -> Pixels:
        """An image's centre square as (resize, resize, 3) uint8.

        The crop comes first, so that a panorama takes no longer than a square image.
        """
        rgb, side = self._rgb(image), self.resize
        if rgb.size == (side, side):
            return np.asarray(rgb)
        short = min(rgb.size)
        left, top = (rgb.width - short) / 2, (rgb.height - short) / 2
        box = (left, top, left + short, top + short)
        return np.asarray(rgb.resize((side, side), _RESAMPLING[self.interpolation], box=box))

    def _rgb(self, image: Image.Image) -> Image.Image:
        if is_deep(image):
            # Pillow's own conversion clips everything above 255 to white.
            levels = np.nan_to_num(np.asarray(image).astype(np.float32)) * (255.0 / self.white)
            return Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8)).convert("RGB")
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, (*self.background, 255))
            return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")

    def scale_and_shift(self) -> tuple[Floats, Floats]:
        """Normalisation of 8-bit values as `value * scale - shift`: two arrays (3,) float32, one value per channel."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return (1.0 / (255.0 * std)).astype(np.float32), (mean / std).astype(np.float32)

    def normalise(self, pixels: Pixels) -> Floats:
        """(N, H, W, 3) uint8 to (N, 3, H, W) float32, contiguous."""
        scale, shift = self.scale_and_shift()
        scaled = pixels.astype(np.float32) * scale - shift
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def centre_crop(pixels: Pixels, side: int) -> Pixels:
    """The centre (side, side) of (..., H, W, C) pixels."""
    top, left = (pixels.shape[-3] - side) // 2, (pixels.shape[-2] - side) // 2
    return pixels[..., top : top + side, left : left + side, :]


def is_deep(image: Image.Image) -> bool:
    """Whether an image is greyscale with more than 8 bits or float values, so that its range has to be known."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")
