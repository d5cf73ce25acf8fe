"""Augmentation of training images: parameters are drawn per sample, pixels are computed per batch.

A view is a table of random draws, one row per sample. It depends only on (seed, epoch, sample): batches, the number of
workers and a resumed run do not change what an image looks like, and a stored seed brings the same view back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.recipe.settings import LARGEST_WHOLE, AugmentSettings
from edgekd.runtime.preprocess import Pixels, Preprocessing, Size, centre_crop

_RATIOS = (3 / 4, 4 / 3)
_VERTICAL, _HORIZONTAL, _FLIP, _AREA, _RATIO = range(5)
DRAWS = 5


def draw_view(seed: int, epoch: int, count: int, *, second: bool = False) -> Tensor:
    """The random draws for each sample in one epoch; `second` draws another view of each.

    Row i is the same for every `count` above i. The columns are the crop's vertical and horizontal position
    (0 top or left, 1 bottom or right), whether it is mirrored (below one half), its area, and its ratio of width to
    height (0 the smallest, 1 the largest). All are drawn, whether or not the augmentation uses them.

    Returns:
        (count, 5) float64, uniform in [0, 1).
    """
    return torch.rand(count, DRAWS, dtype=torch.float64, generator=generator(seed, epoch, 2 if second else 0))


def draw_order(seed: int, epoch: int, count: int) -> Tensor:
    """The samples of one epoch, shuffled: (count,) int64."""
    return torch.randperm(count, generator=generator(seed, epoch, 1))


def generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """An independent random generator for each (seed, epoch, stream)."""
    state = np.random.SeedSequence([seed % 2**64, epoch, stream]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def pad_crop(pixels: Tensor, view: Tensor, *, size: Size, padding: int, flip: bool) -> Tensor:
    """Shifted crops of images with a black border, some of them mirrored.

    Args:
        pixels: (N, H, W, C) uint8, H and W plus 2·padding at least `size`.
        view: (N, 5), see draw_view().
        size: height and width of the crops.

    Returns:
        (N, *size, C) uint8.
    """
    padded = F.pad(pixels, (0, 0, padding, padding, padding, padding))
    count, high, wide, channels = padded.shape
    # 32 bits are enough for the pixels of any batch, and are written faster than 64.
    down, across = (torch.arange(side, dtype=torch.int32, device=pixels.device) for side in size)
    columns = torch.where(_mirrored(view, flip)[:, None], size[1] - 1 - across, across)
    top, left = _places(view[:, _VERTICAL], high - size[0]), _places(view[:, _HORIZONTAL], wide - size[1])
    rows = torch.arange(count, dtype=torch.int32, device=pixels.device)[:, None] * high + top + down
    index = rows[:, :, None] * wide + (left + columns)[:, None, :]
    return padded.reshape(-1, channels).index_select(0, index.view(-1)).view(count, *size, channels)


def _places(draws: Tensor, room: int) -> Tensor:
    """Positions from 0 to `room`: (N, 1) int32."""
    return (draws * (room + 1)).int().clamp_(max=room)[:, None]


def resized_crop(pixels: Tensor, view: Tensor, *, size: Size, scale: tuple[float, float], flip: bool) -> Tensor:
    """Boxes of random area and aspect ratio, scaled to one size (bilinear), some of them mirrored.

    Args:
        pixels: (N, H, W, C) uint8.
        view: (N, 5), see draw_view(); ratios are relative to the image's own.
        size: height and width of the crops.
        scale: smallest and largest fraction of the image's area.

    Returns:
        (N, *size, C) float32, 0 to 255.
    """
    area = scale[0] + (scale[1] - scale[0]) * view[:, _AREA]
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratio = torch.exp(low + (high - low) * view[:, _RATIO])
    # grid_sample's coordinates go from -1 to 1: a box of relative width w has its centre within ±(1 - w).
    width, height = (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)
    across = (2 * view[:, _HORIZONTAL] - 1) * (1 - width)
    down = (2 * view[:, _VERTICAL] - 1) * (1 - height)
    sign = torch.where(_mirrored(view, flip), -1.0, 1.0)
    zero = torch.zeros_like(width)
    boxes = torch.stack([sign * width, zero, across, zero, height, down], dim=1).view(-1, 2, 3).float()
    shape = [len(pixels), pixels.shape[3], *size]
    grid = F.affine_grid(boxes, shape, align_corners=False)
    images = pixels.permute(0, 3, 1, 2).float()
    crops = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.permute(0, 2, 3, 1)


class Normalise:
    """Preprocessing.normalise for tensors; on a CPU the results are bit-identical.

    From (N, H, W, C), 0 to 255, to (N, C, H, W) float32, channels_last.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        width = preprocessing.shape.width
        # Repeated to one row of an image, which vector instructions need; three channels are too few.
        rows = (torch.from_numpy(each).repeat(width).to(device) for each in preprocessing.scale_and_shift())
        self._scale, self._shift = rows

    def __call__(self, pixels: Tensor) -> Tensor:
        rows = pixels.flatten(2).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return rows.mul_(self._scale).sub_(self._shift).view(pixels.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Augmentation:
    """An augmentation with all parameters resolved; see resolve()."""

    crop: str
    size: Size
    padding: int
    scale: tuple[float, float]
    flip: bool

    def __call__(self, pixels: Tensor, view: Tensor) -> Tensor:
        """(N, H, W, C) uint8 and the samples' rows of a view to (N, *size, C), 0 to 255."""
        if self.crop == "resized":
            return resized_crop(pixels, view, size=self.size, scale=self.scale, flip=self.flip)
        if self.crop == "none":
            pixels = middle(pixels, self.size)
        return pad_crop(pixels, view, size=self.size, padding=self.padding, flip=self.flip)


def resolve(settings: AugmentSettings, preprocessing: Preprocessing, *, mirror: bool) -> Augmentation:
    """Resolve "auto" and the defaults for an image size.

    Args:
        mirror: whether a mirrored image keeps its class.
    """
    size = preprocessing.image_size
    crop = settings.crop
    if crop == "auto":
        crop = "pad" if max(size) <= LARGEST_WHOLE else "resized"
    padding = min(size) // 8 if settings.padding is None else settings.padding
    flip = mirror if settings.flip is None else settings.flip
    return Augmentation(crop, size, padding if crop == "pad" else 0, settings.scale, flip)


def middle(pixels: Tensor, size: Size) -> Tensor:
    """The centre crop of (N, H, W, C) pixels, as Preprocessing makes it."""
    return cast(Tensor, centre_crop(cast(Pixels, pixels), size))  # slicing is the same for both


def _mirrored(view: Tensor, flip: bool) -> Tensor:
    return view[:, _FLIP] < 0.5 if flip else torch.zeros(len(view), dtype=torch.bool, device=view.device)
