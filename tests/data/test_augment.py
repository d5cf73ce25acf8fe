from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from edgekd.data.augment import (
    DRAWS,
    Normalise,
    draw_order,
    draw_view,
    middle,
    pad_crop,
    resized_crop,
    resolve,
)
from edgekd.recipe.settings import AugmentSettings
from edgekd.runtime.preprocess import Preprocessing, Size


def images(count: int, side: int, width: int | None = None, channels: int = 3) -> Tensor:
    shape = (count, side, width or side, channels)
    return torch.from_numpy(np.random.default_rng(side).integers(0, 256, shape, np.uint8))


def slow_pad_crop(
    image: npt.NDArray[np.uint8], draw: list[float], *, size: Size, padding: int, flip: bool
) -> npt.NDArray[np.uint8]:
    """One sample at a time, as one would write it first."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = (int(draw[i] * (padded.shape[i] - size[i] + 1)) for i in range(2))
    crop = padded[top : top + size[0], left : left + size[1]]
    return crop[:, ::-1] if flip and draw[2] < 0.5 else crop


@given(
    side=st.integers(4, 12),
    width=st.integers(4, 12),
    channels=st.sampled_from([1, 3]),
    smaller=st.integers(0, 3),
    padding=st.integers(0, 5),
    flip=st.booleans(),
    seed=st.integers(),
)
@settings(max_examples=50, deadline=None)
def test_pad_crop_is_what_one_by_one_gives(
    side: int, width: int, channels: int, smaller: int, padding: int, flip: bool, seed: int
) -> None:
    pixels, view = images(6, side, width, channels), draw_view(seed, 0, 6)
    size = (side - smaller, width - smaller // 2)
    crops = pad_crop(pixels, view, size=size, padding=padding, flip=flip)
    for crop, image, draw in zip(crops, pixels, view.tolist(), strict=True):
        expected = slow_pad_crop(image.numpy(), draw, size=size, padding=padding, flip=flip)
        assert np.array_equal(crop.numpy(), expected)


def test_every_shift_is_reached_and_none_beyond() -> None:
    view = draw_view(0, 0, 2000)
    view[0, :2] = 1.0  # not drawn, but rounding may come near
    crops = pad_crop(images(1, 8).expand(2000, 8, 8, 3), view, size=(8, 8), padding=1, flip=False)
    assert len(torch.unique(crops.flatten(1), dim=0)) == 9


@pytest.mark.parametrize("flip", [False, True])
def test_a_resized_crop_is_what_pillow_cuts_out(flip: bool) -> None:
    """Boxes that are no larger than the result: there Pillow's bilinear filter is the plain one."""
    high, wide = 40, 56
    smooth = np.array(Image.fromarray(images(1, 6)[0].numpy()).resize((wide, high), Image.Resampling.BICUBIC))
    view = draw_view(3, 0, 8)
    pixels = torch.from_numpy(smooth).expand(8, high, wide, 3)
    crops = resized_crop(pixels, view, size=(high, wide), scale=(0.2, 0.9), flip=flip)
    for crop, (down, across, mirrored, area, ratio) in zip(crops, view.tolist(), strict=True):
        share, shape = 0.2 + 0.7 * area, np.exp(np.log(3 / 4) + np.log(16 / 9) * ratio)
        width, height = min(1.0, np.sqrt(share * shape)) * wide, min(1.0, np.sqrt(share / shape)) * high
        left, top = across * (wide - width), down * (high - height)
        box = (left, top, left + width, top + height)
        cut = Image.fromarray(smooth).resize((wide, high), Image.Resampling.BILINEAR, box=box)
        expected = np.asarray(cut)[:, ::-1] if flip and mirrored < 0.5 else np.asarray(cut)
        # At its edge Pillow repeats the box's own border, grid_sample looks at the pixels beyond it.
        assert np.abs(crop.numpy() - expected)[2:-2, 2:-2].max() < 1.5


def test_the_whole_area_resized_is_the_image() -> None:
    view = torch.tensor([[0.3, 0.7, 0.9, 1.0, 0.5]], dtype=torch.float64)
    view[:, 4] = 0.5  # a square: log-uniform between 3/4 and 4/3
    pixels = images(1, 9)
    assert torch.allclose(
        resized_crop(pixels, view, size=(9, 9), scale=(1.0, 1.0), flip=True), pixels.float(), atol=1e-3
    )
    view[:, 2] = 0.1
    mirrored = resized_crop(pixels, view, size=(9, 9), scale=(1.0, 1.0), flip=True)
    assert torch.allclose(mirrored, pixels.flip(2).float(), atol=1e-3)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2000), st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_a_view_depends_on_seed_epoch_and_sample_only(seed: int, epoch: int, count: int, more: int) -> None:
    view = draw_view(seed, epoch, count)
    assert view.shape == (count, DRAWS) and torch.equal(draw_view(seed, epoch, count + more)[:count], view)
    assert torch.all((view >= 0) & (view < 1))
    assert sorted(draw_order(seed, epoch, count).tolist()) == list(range(count))


def test_a_view_is_not_another_ones() -> None:
    views = [draw_view(seed, epoch, 8) for seed in (-1, 0, 1) for epoch in (0, 1)]
    assert len(torch.unique(torch.stack(views).flatten(1), dim=0)) == 6


def test_a_view_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw_view(0, 0, 8), draw_order(0, 0, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_normalise_is_preprocessing() -> None:
    preprocessing = Preprocessing((10, 10), (10, 10))
    pixels = images(4, 10)
    made = Normalise(preprocessing, torch.device("cpu"))(pixels)
    assert np.array_equal(made.numpy(), preprocessing.normalise(pixels.numpy()))
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)


def test_normalise_does_not_write_into_its_input() -> None:
    pixels = images(2, 10).float()
    before = pixels.clone()
    Normalise(Preprocessing((10, 10), (10, 10)), torch.device("cpu"))(pixels)
    assert torch.equal(pixels, before)


def test_auto_and_defaults() -> None:
    small, large = Preprocessing((32, 32), (32, 32)), Preprocessing((224, 224), (256, 256))
    assert resolve(AugmentSettings(), small, mirror=True).crop == "pad"
    assert resolve(AugmentSettings(), small, mirror=True).padding == 4
    assert resolve(AugmentSettings(), large, mirror=True).crop == "resized"
    assert resolve(AugmentSettings(), small, mirror=True).flip is True
    assert resolve(AugmentSettings(), small, mirror=False).flip is False
    assert resolve(AugmentSettings(flip=True), small, mirror=False).flip is True


def test_none_is_the_centre() -> None:
    pixels, view = images(3, 12), draw_view(0, 0, 3)
    plain = resolve(AugmentSettings(crop="none", flip=False), Preprocessing((10, 10), (12, 12)), mirror=True)
    assert torch.equal(plain(pixels, view), middle(pixels, (10, 10))) and torch.equal(
        middle(pixels, (10, 10)), pixels[:, 1:11, 1:11]
    )


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.9, 0.5), (0.5, 1.5)])
def test_a_scale_that_is_not_a_range(scale: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"scale \[.*\] is not a range"):
        AugmentSettings(scale=scale)
