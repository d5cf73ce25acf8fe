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

from edgekd.errors import UsageError
from edgekd.recipe.settings import AugmentSettings
from edgekd.runtime.preprocess import Pixels, Preprocessing, centre_crop

_LARGEST_PADDED = 96
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


def pad_crop(pixels: Tensor, view: Tensor, *, size: int, padding: int, flip: bool) -> Tensor:
    """Shifted crops of images with a black border, some of them mirrored.

    Args:
        pixels: (N, R, R, 3) uint8, R + 2·padding at least `size`.
        view: (N, 5), see draw_view().

    Returns:
        (N, size, size, 3) uint8.
    """
    padded = F.pad(pixels, (0, 0, padding, padding, padding, padding))
    count, side = padded.shape[:2]
    places = side - size + 1
    # 32 bits are enough for the pixels of any batch, and are written faster than 64.
    steps = torch.arange(size, dtype=torch.int32, device=pixels.device)
    columns = torch.where(_mirrored(view, flip)[:, None], size - 1 - steps, steps)
    top, left = ((view[:, axis] * places).int().clamp_(max=places - 1)[:, None] for axis in (_VERTICAL, _HORIZONTAL))
    rows = torch.arange(count, dtype=torch.int32, device=pixels.device)[:, None] * side + top + steps
    index = rows[:, :, None] * side + (left + columns)[:, None, :]
    return padded.reshape(-1, 3).index_select(0, index.view(-1)).view(count, size, size, 3)


def resized_crop(pixels: Tensor, view: Tensor, *, size: int, scale: tuple[float, float], flip: bool) -> Tensor:
    """Boxes of random area and aspect ratio, scaled to a square (bilinear), some of them mirrored.

    Args:
        pixels: (N, R, R, 3) uint8.
        view: (N, 5), see draw_view().
        scale: smallest and largest fraction of the image's area.

    Returns:
        (N, size, size, 3) float32, 0 to 255.
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
    shape = [len(pixels), 3, size, size]
    grid = F.affine_grid(boxes, shape, align_corners=False)
    images = pixels.permute(0, 3, 1, 2).float()
    crops = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.permute(0, 2, 3, 1)


class Normalise:
    """Preprocessing.normalise for tensors; on a CPU the results are bit-identical.

    From (N, S, S, 3), 0 to 255, to (N, 3, S, S) float32, channels_last.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        size = preprocessing.image_size
        # Repeated to one row of an image, which vector instructions need; three channels are too few.
        rows = (torch.from_numpy(each).repeat(size).to(device) for each in preprocessing.scale_and_shift())
        self._scale, self._shift = rows

    def __call__(self, pixels: Tensor) -> Tensor:
        rows = pixels.flatten(2).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return rows.mul_(self._scale).sub_(self._shift).view(pixels.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Augmentation:
    """An augmentation with all parameters resolved; see resolve()."""

    crop: str
    size: int
    padding: int
    scale: tuple[float, float]
    flip: bool

    def __call__(self, pixels: Tensor, view: Tensor) -> Tensor:
        """(N, R, R, 3) uint8 and the samples' rows of a view to (N, size, size, 3), 0 to 255."""
        if self.crop == "resized":
            return resized_crop(pixels, view, size=self.size, scale=self.scale, flip=self.flip)
        if self.crop == "none":
            pixels = middle(pixels, self.size)
        return pad_crop(pixels, view, size=self.size, padding=self.padding, flip=self.flip)


def resolve(settings: AugmentSettings, preprocessing: Preprocessing, *, mirror: bool) -> Augmentation:
    """Resolve "auto" and the defaults for an image size.

    Args:
        mirror: whether a mirrored image keeps its class.

    Raises:
        UsageError: the scale is not a range within (0, 1].
    """
    if not 0.0 < settings.scale[0] <= settings.scale[1] <= 1.0:
        raise UsageError(
            "data.augment.scale is not a range", found=settings.scale, allowed="0 < smallest ≤ largest ≤ 1"
        )
    size = preprocessing.image_size
    crop = settings.crop
    if crop == "auto":
        crop = "pad" if size <= _LARGEST_PADDED else "resized"
    padding = size // 8 if settings.padding is None else settings.padding
    flip = mirror if settings.flip is None else settings.flip
    return Augmentation(crop, size, padding if crop == "pad" else 0, settings.scale, flip)


def middle(pixels: Tensor, size: int) -> Tensor:
    """The centre crop of (N, R, R, 3) pixels, as Preprocessing makes it."""
    return cast(Tensor, centre_crop(cast(Pixels, pixels), size))  # slicing is the same for both


def _mirrored(view: Tensor, flip: bool) -> Tensor:
    return view[:, _FLIP] < 0.5 if flip else torch.zeros(len(view), dtype=torch.bool, device=view.device)
