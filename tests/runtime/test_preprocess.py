from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekd.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, centre_crop


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
    lying = Preprocessing(8, 8).square(Image.fromarray(stripes))
    assert (lying[:, 1:-1] == (0, 255, 0)).all()
    whole = np.asarray(Image.fromarray(stripes).resize((24, 8), Image.Resampling.BILINEAR))
    assert np.abs(lying.astype(int) - whole[:, 8:16]).max() <= 1
    assert (Preprocessing(8, 8).square(Image.fromarray(stripes.transpose(1, 0, 2))) == lying.transpose(1, 0, 2)).all()


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


def test_a_bundle_of_an_earlier_version_has_the_defaults():
    known = Preprocessing(8, 8).to_json()
    del known["background"], known["white"]
    assert Preprocessing.from_json(known) == Preprocessing(8, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_pixels_show_the_background(mode):
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (51, 51, 51, 255))
    if mode == "P":
        image = Image.new("P", (2, 2), 1)
        image.putpalette([51, 51, 51, 0, 0, 0])
        image.putpixel((0, 0), 0)
        image.info["transparency"] = 1
    elif mode == "RGB":
        image = image.convert("RGB")
        image.info["transparency"] = (0, 0, 0)
    else:
        image = image.convert(mode)
    for background in ((255, 255, 255), (10, 20, 30)):
        pixels = Preprocessing(2, 2, background=background).pixels(image)
        assert pixels[0, 0].tolist() == [51, 51, 51] and pixels[1, 1].tolist() == list(background)


def test_half_transparent_pixels_are_mixed():
    image = Image.new("RGBA", (1, 1), (100, 0, 0, 128))
    share = 128 / 255
    expected = [100 * share + 255 * (1 - share), 255 * (1 - share), 255 * (1 - share)]
    assert np.abs(Preprocessing(1, 1).pixels(image)[0, 0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "YCbCr", "HSV", "P"])
def test_other_kinds_of_image_become_rgb(mode):
    grey = Image.new("L", (2, 2), 255).convert("RGB")
    assert (Preprocessing(2, 2).pixels(grey.convert(mode)) == 255).all()


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.array([[0, 4095]], np.uint16), 4095.0),
        (np.array([[0, 65535]], np.uint16), 65535.0),
        (np.array([[0, 1000]], np.int32), 1000.0),
        (np.array([[0.0, 1.0]], np.float32), 1.0),
        (np.array([[np.nan, 7.0]], np.float32), 1.0),  # beyond white is white
    ],
)
def test_deep_grey_keeps_its_range(values, white):
    image = Image.fromarray(np.repeat(values, 2, axis=0))
    assert Preprocessing(2, 2, white=white).pixels(image)[0, :, 0].tolist() == [0, 255]
