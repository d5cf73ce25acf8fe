"""Greyscale images of more than 8 bits or of float values: the range of their values, and its conversion to 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.errors import RangeError

# What is white: the largest value of float images from 0 to 1 and of 8, 10, 12, 14 and 16 bits.
RANGES = (1.0, *(2.0**bits - 1.0 for bits in (8, 10, 12, 14, 16)))
# A few values outside are the noise and the highlights of a camera, or the ringing of a filter; they are clipped.
_MOST_OUTSIDE = 0.01
# No value of a normalised image is larger.
_NORMALISED = 8.0
_BELOW = "rescale it so that black is 0; if it was normalised, undo that: value * std + mean"
_ABOVE = "scale its values to this range"
_UNKNOWN = "replace NaN by numbers"


def is_deep(image: Image.Image) -> bool:
    """Whether an image is greyscale with more than 8 bits or float values, so that its range has to be known."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def largest(image: Image.Image) -> float | None:
    """A deep image's largest value; None where that is no range: with many values below 0, or with infinity."""
    values = np.asarray(image)
    if (values < 0).mean() > _MOST_OUTSIDE:
        return None
    found = float(np.nanmax(values, initial=0))
    return found if np.isfinite(found) else None


def levels(image: Image.Image, white: float) -> npt.NDArray[np.uint8]:
    """A deep image's values as 8 bits: (H, W), 0 stays 0, and `white` becomes 255.

    Args:
        image: see is_deep().
        white: one of RANGES, or another number: then it is the largest value of the images that a range was taken from,
            and brighter images are clipped.

    Raises:
        RangeError: more than a hundredth of the values lie outside of that range, or are NaN; or they are floats as of
            an image from 0 to 1 or a normalised one, and white is 255 or more.
    """
    values = np.asarray(image).astype(np.float32)
    scaled = values * np.float32(255.0 / white)
    if values.size:
        _check(values, scaled, white, floats=image.mode == "F")
    # NaN, infinity: not a warning of NumPy's, but black and white.
    finite = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    rounded: npt.NDArray[np.uint8] = np.rint(finite.clip(0, 255)).astype(np.uint8)
    return rounded


def _check(values: npt.NDArray[np.float32], scaled: npt.NDArray[np.float32], white: float, *, floats: bool) -> None:
    below, unknown = scaled < -0.5, np.isnan(scaled)
    above = scaled > 255.5 if white in RANGES else np.zeros_like(below)
    for kind, hint in ((below, _BELOW), (above, _ABOVE), (unknown, _UNKNOWN)):
        if kind.mean() > _MOST_OUTSIDE:
            share = f"{(below | above | unknown).mean():.0%} of them outside"
            raise _refusal(white, f"{span(values)}, {share}", hint)
    # Floats from 0 to 1, or normalised ones, which would all be black.
    peak = np.nanmax(np.abs(values), initial=0.0)
    if floats and white > 1.0 and 0.0 < peak <= min(_NORMALISED, white / 255.0):
        raise _refusal(white, span(values), _BELOW if values.min() < 0.0 else _ABOVE)


def _refusal(white: float, found: str, hint: str) -> RangeError:
    allowed = f"0 (black) to {white:g} (white)"
    return RangeError("values outside of the range of an image", found=found, allowed=allowed, hint=hint)


def span(values: npt.NDArray[Any]) -> str:
    """The smallest and the largest of an image's values, in words."""
    known = values[~np.isnan(values)]
    return f"values from {known.min():.5g} to {known.max():.5g}" if known.size else "NaN"
