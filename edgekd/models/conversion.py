"""Converts a network's inputs that were made for another network: channels, normalisation and size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.runtime.preprocess import check_normalisation

Matrix = npt.NDArray[np.float32]
# Of RGB in greyscale (ITU-R BT.601), as Pillow converts.
_LUMA = (0.299, 0.587, 0.114)


class Conversion:
    """From inputs (B, C, H, W) of one normalisation, number of channels and size to another.

    Sizes of another ratio of height to width keep their image whole: the rest is filled with the mean. All of it is
    linear: `mix` (C', C) and `shift` (C',) on the channels; `rows` (H', H) and `columns` (W', W) on the positions, None
    where the size stays.

    Attributes:
        given: the shape before, (C, H, W).

    Args:
        given, own: before and after, {"image_size": [H, W], "mean": [C], "std": [C]}.

    Raises:
        KeyError, TypeError, ValueError: one of them is not an input.
    """

    def __init__(self, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        (mean, std), (own_mean, own_std) = _normalisation(given), _normalisation(own)
        channels = _channels(len(mean), len(own_mean))
        mix, shift = channels * std / own_std[:, None], (channels @ mean - own_mean) / own_std
        self.given = (len(mean), *_size_of(given))
        self.mix: Matrix = mix.astype(np.float32)
        self.shift: Matrix = shift.astype(np.float32)
        before, after = _size_of(given), _size_of(own)
        scale = min(after[0] / before[0], after[1] / before[1])
        self.rows, self.columns = (_axis(*sides, scale) for sides in zip(before, after, strict=True))

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """As a hook before a network's forward()."""
        return self.convert(inputs[0])

    def convert(self, images: Tensor) -> Tensor:
        """(B, C, H, W) as given to (B, C', H', W') of the network's own."""
        mix, shift = (torch.from_numpy(each).to(images) for each in (self.mix, self.shift))
        images = F.conv2d(images, mix[:, :, None, None], shift)
        if self.rows is not None:
            images = torch.from_numpy(self.rows).to(images) @ images
        if self.columns is not None:
            images = images @ torch.from_numpy(self.columns).to(images).T
        return images


def resampling(before: int, after: int) -> Matrix:
    """The matrix (after, before) that resamples a row of pixels linearly, with the wider filter where it gets shorter.

    These are the weights that Pillow's bilinear resize has: a triangle around each new pixel's centre, as wide as the
    larger of an old and a new pixel, cut at the edge and scaled to a sum of 1.
    """
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = (np.arange(before) + 0.5)[None, :] - centres[:, None]
    weights = (1.0 - np.abs(distance) / max(scale, 1.0)).clip(min=0.0)
    matrix: Matrix = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _axis(before: int, after: int, scale: float) -> Matrix | None:
    """Resampling by `scale`, between borders of zeros up to `after`."""
    if before == after and scale == 1.0:
        return None
    inner = min(after, max(1, round(before * scale)))
    matrix = np.zeros((after, before), np.float32)
    start = (after - inner) // 2
    matrix[start : start + inner] = resampling(before, inner)
    return matrix


def _channels(before: int, after: int) -> npt.NDArray[np.float64]:
    if before == after:
        return np.eye(before)
    return np.ones((after, 1)) if before == 1 else np.array([_LUMA])


def _normalisation(described: Mapping[str, Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    mean, std = (np.asarray([float(value) for value in described[key]]) for key in ("mean", "std"))
    if len(mean) not in (1, 3):
        raise ValueError(f"not a normalisation: mean {mean.tolist()}, std {std.tolist()}")
    check_normalisation(mean.tolist(), std.tolist())
    return mean, std


def _size_of(described: Mapping[str, Any]) -> tuple[int, int]:
    height, width = (int(side) for side in described["image_size"])
    if min(height, width) < 1:
        raise ValueError(f"not a size: {height}x{width}")
    return height, width
