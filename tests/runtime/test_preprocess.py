from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekd.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, InputShape, Preprocessing, centre_crop, lost_by_crop


def test_normalise_is_scale_mean_std_in_channel_order():
    preprocessing = Preprocessing((2, 2), (2, 2))
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
    lying = Preprocessing((8, 8), (8, 8)).fitted(Image.fromarray(stripes))
    assert (lying[:, 1:-1] == (0, 255, 0)).all()
    whole = np.asarray(Image.fromarray(stripes).resize((24, 8), Image.Resampling.BILINEAR))
    assert np.abs(lying.astype(int) - whole[:, 8:16]).max() <= 1
    assert (
        Preprocessing((8, 8), (8, 8)).fitted(Image.fromarray(stripes.transpose(1, 0, 2))) == lying.transpose(1, 0, 2)
    ).all()


@pytest.mark.parametrize(("width", "height", "box"), [(15, 8, (3, 0)), (8, 13, (0, 2)), (10, 8, (1, 0))])
def test_what_need_not_be_scaled_is_cut_at_whole_pixels(width, height, box):
    """At half pixels, all would be the mean of two."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top = box
    found = Preprocessing((8, 8), (8, 8)).fitted(Image.fromarray(pixels))
    np.testing.assert_array_equal(found, pixels[top : top + 8, left : left + 8])


def test_an_image_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (Preprocessing((8, 8), (8, 8)).pixels(Image.fromarray(pixels)) == pixels).all()


def test_centre_crop_of_a_batch():
    pixels = np.arange(2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    assert (centre_crop(pixels, (4, 5)) == pixels[:, 1:5, 1:6]).all()


def test_json_round_trip_and_what_it_refuses():
    preprocessing = Preprocessing((224, 224), (256, 256), interpolation="bicubic")
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing
    with pytest.raises(ValueError, match="interpolation"):
        Preprocessing.from_json({**preprocessing.to_json(), "interpolation": "lanczos"})


def test_a_bundle_of_an_earlier_version_has_the_defaults():
    known = Preprocessing((8, 8), (8, 8)).to_json()
    del known["background"], known["white"]
    assert Preprocessing.from_json(known) == Preprocessing((8, 8), (8, 8))


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
        pixels = Preprocessing((2, 2), (2, 2), background=background).pixels(image)
        assert pixels[0, 0].tolist() == [51, 51, 51] and pixels[1, 1].tolist() == list(background)


def test_half_transparent_pixels_are_mixed():
    image = Image.new("RGBA", (1, 1), (100, 0, 0, 128))
    share = 128 / 255
    expected = [100 * share + 255 * (1 - share), 255 * (1 - share), 255 * (1 - share)]
    assert np.abs(Preprocessing((1, 1), (1, 1)).pixels(image)[0, 0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "YCbCr", "HSV", "P"])
def test_other_kinds_of_image_become_rgb(mode):
    grey = Image.new("L", (2, 2), 255).convert("RGB")
    assert (Preprocessing((2, 2), (2, 2)).pixels(grey.convert(mode)) == 255).all()


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.array([[0, 4095]], np.uint16), 4095.0),
        (np.array([[0, 65535]], np.uint16), 65535.0),
        (np.array([[0, 1000]], np.int32), 1000.0),
        (np.array([[0.0, 1.0]], np.float32), 1.0),
    ],
)
def test_deep_grey_keeps_its_range(values, white):
    image = Image.fromarray(np.repeat(values, 2, axis=0))
    assert Preprocessing((2, 2), (2, 2), white=white).pixels(image)[0, :, 0].tolist() == [0, 255]


def gradient(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.dstack([rows * 255 // height, columns * 255 // width, rows * 0]).astype(np.uint8))


def test_a_crop_has_the_ratio_of_the_input():
    """60x100 for a ratio of 1:3: 33.33 rows in the middle, from a whole row on, over the whole width."""
    wanted = Preprocessing((20, 60), (20, 60))
    image = gradient(60, 100)
    box = (0, 13, 100, 13 + 100 / 3)
    expected = np.asarray(image.resize((60, 20), Image.Resampling.BILINEAR, box=box))
    assert np.array_equal(wanted.pixels(image), expected)
    upright = Preprocessing((60, 20), (60, 20)).pixels(image.transpose(Image.Transpose.TRANSPOSE))
    assert np.abs(upright.transpose(1, 0, 2).astype(int) - expected).max() <= 1


def test_pad_keeps_all_of_an_image_on_the_background():
    padded = Preprocessing((40, 40), (40, 40), fit="pad", background=(10, 20, 30))
    image = gradient(30, 60)
    pixels = padded.pixels(image)
    assert (pixels[:10] == (10, 20, 30)).all() and (pixels[30:] == (10, 20, 30)).all()
    assert np.array_equal(pixels[10:30], np.asarray(image.resize((40, 20), Image.Resampling.BILINEAR)))


def test_squash_scales_whatever_the_ratio():
    image = gradient(30, 60)
    expected = np.asarray(image.resize((40, 50), Image.Resampling.BILINEAR))
    assert np.array_equal(Preprocessing((50, 40), (50, 40), fit="squash").pixels(image), expected)


def test_greyscale_has_one_channel_and_one_mean():
    grey = Preprocessing((2, 3), (2, 3), (0.5,), (0.25,))
    image = Image.fromarray(np.full((2, 3, 3), (255, 0, 0), np.uint8))
    assert grey.shape == InputShape(1, 2, 3)
    assert (grey.pixels(image) == 76).all() and grey.pixels(image).shape == (2, 3, 1)  # 0.299 * 255
    assert np.allclose(grey.normalise(grey.pixels(image)[None]), (76 / 255 - 0.5) / 0.25)
    assert grey.normalise(grey.pixels(image)[None]).shape == (1, 1, 2, 3)
    deep = Image.fromarray(np.full((2, 3), 4095, np.uint16))
    assert (Preprocessing((2, 3), (2, 3), (0.5,), (0.25,), white=4095.0).pixels(deep) == 255).all()


def test_json_has_one_number_for_a_square_and_two_for_another_size():
    wide = Preprocessing((96, 160), (109, 182), (0.5,), (0.25,), fit="squash")
    described = wide.to_json()
    assert (described["image_size"], described["resize"], described["channels"]) == ([96, 160], [109, 182], 1)
    assert Preprocessing.from_json(described) == wide
    assert Preprocessing((8, 8), (9, 9)).to_json()["image_size"] == 8
    for wrong in ({"fit": "stretch"}, {"mean": [0.5, 0.5]}, {"image_size": [1, 2, 3]}):
        with pytest.raises(ValueError):
            Preprocessing.from_json({**described, **wrong})


def test_how_much_a_crop_discards():
    assert lost_by_crop((100, 100), (224, 224)) == 0
    assert lost_by_crop((1080, 1920), (224, 224)) == pytest.approx(1 - 9 / 16)
    assert lost_by_crop((1080, 1920), (90, 160)) == 0
    assert lost_by_crop((100, 100), (100, 200)) == lost_by_crop((100, 100), (200, 100)) == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.5, 0.5, 300.0)},
        {"mean": (np.nan, 0.5, 0.5)},
        {"mean": (0.5, 0.5), "std": (0.5, 0.5)},
        {"std": (0.0, 1.0, 1.0)},
        {"std": (1e-38, 1.0, 1.0)},
        {"std": (np.inf, 1.0, 1.0)},
        {"std": (1.0,)},
        {"image_size": (0, 8)},
        {"resize": (8, 4)},
        {"white": 0.0},
        {"white": np.inf},
    ],
)
def test_what_no_image_can_be_prepared_with_is_refused(wrong):
    with pytest.raises(ValueError):
        Preprocessing(**{"image_size": (8, 8), "resize": (8, 8), **wrong})
    described = {**Preprocessing((8, 8), (8, 8)).to_json(), **{key: [*np.ravel(each)] for key, each in wrong.items()}}
    with pytest.raises((TypeError, ValueError)):
        Preprocessing.from_json(described)
