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
    """How the network sees an image: shorter side scaled to `resize`, centre crop, RGB in [0, 1], minus mean, over std.

    Attributes:
        image_size: side of the square input, in pixels.
        resize: what the shorter side is scaled to before the crop, in pixels.
        mean, std: per colour channel, of values in [0, 1].
        interpolation: of the scaling.
    """

    image_size: int
    resize: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        """The inverse of to_json(). Raises KeyError, TypeError or ValueError for a missing or wrong field."""
        red, green, blue = (float(number) for number in value["mean"])
        red_std, green_std, blue_std = (float(number) for number in value["std"])
        if value["interpolation"] not in _RESAMPLING:
            raise ValueError(f"unknown interpolation {value['interpolation']!r}")
        return cls(
            image_size=int(value["image_size"]),
            resize=int(value["resize"]),
            mean=(red, green, blue),
            std=(red_std, green_std, blue_std),
            interpolation=value["interpolation"],
        )

    def to_json(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def pixels(self, image: Image.Image) -> Pixels:
        """One image as (image_size, image_size, 3) uint8."""
        return centre_crop(square(image, self.resize, self.interpolation), self.image_size)

    def scale_and_shift(self) -> tuple[Floats, Floats]:
        """Normalisation of 8-bit values as `value * scale - shift`: two arrays (3,) float32, one value per channel."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return (1.0 / (255.0 * std)).astype(np.float32), (mean / std).astype(np.float32)

    def normalise(self, pixels: Pixels) -> Floats:
        """(N, H, W, 3) uint8 to (N, 3, H, W) float32, contiguous."""
        scale, shift = self.scale_and_shift()
        scaled = pixels.astype(np.float32) * scale - shift
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def square(image: Image.Image, side: int, interpolation: Interpolation = "bilinear") -> Pixels:
    """The centre square of an image, scaled to (side, side, 3) uint8.

    The crop comes first, so that a panorama takes no longer than a square image.
    """
    rgb = _rgb(image)
    short = min(rgb.size)
    left, top = (rgb.width - short) / 2, (rgb.height - short) / 2
    if rgb.size == (side, side):
        return np.asarray(rgb)
    box = (left, top, left + short, top + short)
    return np.asarray(rgb.resize((side, side), _RESAMPLING[interpolation], box=box))


def centre_crop(pixels: Pixels, side: int) -> Pixels:
    """The centre (side, side) of (..., H, W, C) pixels."""
    top, left = (pixels.shape[-3] - side) // 2, (pixels.shape[-2] - side) // 2
    return pixels[..., top : top + side, left : left + side, :]


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey: Pillow's conversion would clip everything above 255 to white.
        grey = np.asarray(image).astype(np.float32) / 257.0
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
