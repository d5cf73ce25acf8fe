"""From an image to network input: one implementation for the workstation and the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.runtime.depth import is_deep, levels
from edgekd.runtime.fields import field, items, number, text, whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of greyscale images: the means of the three.
IMAGENET_GREY = ((0.449,), (0.226,))

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Interpolation = Literal["bilinear", "bicubic"]
Fit = Literal["crop", "pad", "squash"]
FITS: tuple[Fit, ...] = ("crop", "pad", "squash")
# Height and width, in pixels.
Size = tuple[int, int]

# A step of 16 bits is 1.5e-5 of white: images of a smaller deviation are of one colour.
_LEAST_STD, _LARGEST_STD = 1e-6, 1e6
# Of what is read from files: in pixels, and of float values.
_LARGEST_SIDE, _LARGEST_WHITE = 1 << 15, 1e30
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class InputShape(NamedTuple):
    """The shape of a network's input, without the batch."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}" + (" (greyscale)" if self.channels == 1 else "")


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Check a normalisation of values in [0, 1].

    Raises:
        ValueError: other means than there can be, or deviations that such values cannot be divided by.
    """
    if len(mean) != len(std):
        raise ValueError(f"a mean of {len(mean)} and a std of {len(std)} channels")
    if not all(0.0 <= value <= 1.0 for value in mean):
        raise ValueError("mean must be of values in [0, 1]: divide means of values up to 255 by 255")
    if not all(value > 0.0 for value in std):
        raise ValueError("std must be above 0")
    if not all(_LEAST_STD <= value <= _LARGEST_STD for value in std):
        raise ValueError(f"std must be from {_LEAST_STD:g} to {_LARGEST_STD:g}; found: {list(std)}")


@dataclass(frozen=True)
class Preprocessing:
    """How the network sees an image: fitted and scaled to `resize`, a centre crop, values in [0, 1], mean and std.

    Attributes:
        image_size: height and width of the input, in pixels.
        resize: height and width that an image is scaled to before the crop, in pixels.
        mean, std: per channel, of values in [0, 1]; their number is that of the channels: 3 for RGB, 1 for greyscale.
        interpolation: of the scaling.
        background: RGB, 0 to 255, behind transparent pixels, and around an image with `fit: pad`.
        white: the value that is white in greyscale images of more than 8 bits or of float values.
        fit: how an image of another ratio of height to width becomes one of `resize`. crop: its largest centred box of
            that ratio is scaled; pad: it is scaled to lie within, centred; squash: it is scaled whatever its ratio.
    """

    image_size: Size
    resize: Size
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    background: tuple[int, int, int] = (255, 255, 255)
    white: float = 65535.0
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        """Raises ValueError for what no image can be prepared with; the values may be of a file from anywhere."""
        check_normalisation(self.mean, self.std)
        if len(self.mean) not in (1, 3):
            raise ValueError(f"a mean of {len(self.mean)} channels")
        if min(self.image_size) < 1 or any(
            before < after for before, after in zip(self.resize, self.image_size, strict=True)
        ):
            raise ValueError(f"no crop of {self.image_size} from {self.resize} pixels")
        if not 0.0 < self.white < math.inf:
            raise ValueError(f"white is {self.white}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        """The inverse of to_json(). Raises ValueError for a missing or wrong field.

        A file of an earlier version lacks background, white and fit: it gets the defaults.
        """
        above = "preprocessing."
        channels = {key: items(field(value, key, above), f"{above}{key}") for key in ("mean", "std")}
        mean, std = (
            tuple(number(each, f"{above}{key}", 0.0, _LARGEST_STD) for each in values)
            for key, values in channels.items()
        )
        for key, known, found in (
            ("interpolation", _RESAMPLING, field(value, "interpolation", above)),
            ("fit", FITS, value.get("fit", cls.fit)),
        ):
            if text(found, f"{above}{key}") not in known:
                raise ValueError(f"unknown {key} {found!r}")
        background = items(value.get("background", list(cls.background)), f"{above}background")
        if len(background) != len(cls.background):
            raise ValueError(f"{above}background has {len(background)} values, not {len(cls.background)}")
        red, green, blue = (whole(each, f"{above}background", 0, 255) for each in background)
        return cls(
            image_size=_size_from_json(field(value, "image_size", above), f"{above}image_size"),
            resize=_size_from_json(field(value, "resize", above), f"{above}resize"),
            mean=mean,
            std=std,
            interpolation=value["interpolation"],
            background=(red, green, blue),
            white=number(value.get("white", cls.white), f"{above}white", 0.0, _LARGEST_WHITE),
            fit=value.get("fit", cls.fit),
        )

    def to_json(self) -> dict[str, Any]:
        """Tuples as lists; a square's size as one number; with the number of channels."""
        fields = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        sizes = {key: _size_to_json(fields[key]) for key in ("image_size", "resize")}
        return {**fields, **sizes, "channels": self.shape.channels}

    @property
    def shape(self) -> InputShape:
        """Of the network's input."""
        return InputShape(len(self.mean), *self.image_size)

    @property
    def crop_pct(self) -> float:
        """The fraction of height and width that the crop leaves."""
        return self.image_size[0] / self.resize[0]

    @property
    def stored(self) -> tuple[int, int, int]:
        """The shape of an image before the crop: height, width, channels."""
        return (*self.resize, len(self.mean))

    def pixels(self, image: Image.Image) -> Pixels:
        """One image as uint8, of the input's height, width and channels: (H, W, C). Raises as fitted()."""
        return centre_crop(self.fitted(image), self.image_size)

    def fitted(self, image: Image.Image) -> Pixels:
        """An image before the crop, as uint8: (H, W, C) of `resize`.

        The box is cut out before it is scaled, so that a panorama takes no longer than a square image.

        Raises:
            RangeError: greyscale of more than 8 bits or of float values, of which many are not from 0 to `white`.
        """
        flat = self._flat(image)
        height, width = self.resize
        resampling = _RESAMPLING[self.interpolation]
        if flat.size == (width, height):
            scaled = flat
        elif self.fit == "pad":
            scaled = self._padded(flat, resampling)
        else:
            box = None if self.fit == "squash" else _centred_box(flat.size, (width, height))
            scaled = flat.resize((width, height), resampling, box=box)
        pixels = np.asarray(scaled)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def _padded(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        height, width = self.resize
        scale = min(height / image.height, width / image.width)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        behind = Image.new("RGB", (width, height), self.background).convert(image.mode)
        behind.paste(image.resize(inner, resampling), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return behind

    def _flat(self, image: Image.Image) -> Image.Image:
        """8 bits per channel, without transparency: RGB or greyscale."""
        mode = "RGB" if len(self.mean) == 3 else "L"
        if is_deep(image):
            # Pillow's own conversion clips everything above 255 to white.
            return Image.fromarray(levels(image, self.white)).convert(mode)
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, (*self.background, 255))
            return Image.alpha_composite(canvas, image.convert("RGBA")).convert(mode)
        return image if image.mode == mode else image.convert(mode)

    def scale_and_shift(self) -> tuple[Floats, Floats]:
        """Normalisation of 8-bit values as `value * scale - shift`: two arrays (C,) float32, one value per channel."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return (1.0 / (255.0 * std)).astype(np.float32), (mean / std).astype(np.float32)

    def normalise(self, pixels: Pixels) -> Floats:
        """(N, H, W, C) uint8 to (N, C, H, W) float32, contiguous."""
        scale, shift = self.scale_and_shift()
        scaled = pixels.astype(np.float32) * scale - shift
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def centre_crop(pixels: Pixels, size: Size) -> Pixels:
    """The centre (*size) of (..., H, W, C) pixels."""
    height, width = size
    top, left = (pixels.shape[-3] - height) // 2, (pixels.shape[-2] - width) // 2
    return pixels[..., top : top + height, left : left + width, :]


def lost_by_crop(image: Size, wanted: Size) -> float:
    """The fraction of an image's area, 0 to 1, outside its largest centred box with another ratio of height to width.

    Args:
        image, wanted: heights and widths; of `wanted` only the ratio counts.
    """
    ratio = (image[0] * wanted[1]) / (image[1] * wanted[0])
    return 1.0 - min(ratio, 1.0 / ratio)


def _centred_box(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box with the ratio of `wanted`: left, top, right, bottom. Sizes are widths and heights.

    It begins at a whole pixel: an image that is not scaled would be blurred by half a pixel, which costs MobileNetV2 on
    photos of 256 pixels 3 of 100 answers.
    """
    width, height = float(size[0]), float(size[1])
    if size[0] * wanted[1] < size[1] * wanted[0]:
        height = size[0] * wanted[1] / wanted[0]
    else:
        width = size[1] * wanted[0] / wanted[1]
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _size_from_json(value: Any, place: str) -> Size:
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2:
        raise ValueError(f"{place} has {len(sides)} values, not a height and a width")
    height, width = (whole(each, place, 1, _LARGEST_SIDE) for each in sides)
    return height, width


def _size_to_json(size: Sequence[int]) -> int | list[int]:
    height, width = size
    return height if height == width else [height, width]
