from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekd.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, centre_crop, square


def test_normalise_is_scale_mean_std_in_channel_order():
    preprocessing = Preprocessing(2, 2)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    expected = (pixels.astype(np.float64) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    found = preprocessing.normalise(pixels)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_the_shorter_side_is_scaled_and_the_centre_kept():
    # Left third red, middle green, right third blue: the centre square of a 3:1 image is green; the filter
    # mixes its outermost pixels with what lies beside them, as scaling the whole image would.
    stripes = np.zeros((20, 60, 3), np.uint8)
    for channel in range(3):
        stripes[:, channel * 20 : channel * 20 + 20, channel] = 255
    lying = square(Image.fromarray(stripes), 8)
    assert (lying[:, 1:-1] == (0, 255, 0)).all()
    whole = np.asarray(Image.fromarray(stripes).resize((24, 8), Image.Resampling.BILINEAR))
    assert np.abs(lying.astype(int) - whole[:, 8:16]).max() <= 1
    assert (square(Image.fromarray(stripes.transpose(1, 0, 2)), 8) == lying.transpose(1, 0, 2)).all()


def test_an_image_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (Preprocessing(8, 8).pixels(Image.fromarray(pixels)) == pixels).all()


def test_centre_crop_of_a_batch():
    pixels = np.arange(2 * 6 * 6 * 3).reshape(2, 6, 6, 3)
    assert (centre_crop(pixels, 4) == pixels[:, 1:5, 1:5]).all()


def test_json_round_trip_and_what_it_refuses():
    preprocessing = Preprocessing(224, 256, interpolation="bicubic")
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing
    with pytest.raises(ValueError, match="interpolation"):
        Preprocessing.from_json({**preprocessing.to_json(), "interpolation": "lanczos"})
