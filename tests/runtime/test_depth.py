from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import RangeError
from edgekd.runtime.depth import RANGES, is_deep, levels


def image(values: object, dtype: object = np.float32) -> Image.Image:
    return Image.fromarray(np.asarray(values, dtype=dtype))


def noise(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (20, 20)).astype(np.float32)


def test_the_kinds_of_image_whose_range_has_to_be_known():
    assert is_deep(image([[0]], np.uint16)) and is_deep(image([[0]], np.int32)) and is_deep(image([[0.0]]))
    assert not is_deep(image([[0]], np.uint8)) and not is_deep(Image.new("RGB", (1, 1)))


def test_the_values_of_the_range_become_8_bits():
    assert levels(image([[0, 2048, 4095]], np.uint16), 4095.0).tolist() == [[0, 128, 255]]
    assert levels(image([[0.0, 0.25, 1.0]]), 1.0).tolist() == [[0, 64, 255]]
    # Rounding to 8 bits decides what lies outside: an interpolation may leave 1.0000001.
    assert levels(image([[-0.001, 1.001]]), 1.0).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "white", "message"),
    [
        (noise(-2.1, 2.6), 1.0, r"found: values from -2\.\S+ to 2\.\S+, \d\d% of them outside\n.*0 \(black\) to 1 \("),
        (noise(-2.1, 2.6), 1.0, r"next: .*black is 0.*value \* std \+ mean"),
        (noise(-1024, 3000), 65535.0, "next: rescale it so that black is 0"),
        (noise(0, 65535), 4095.0, r"to 65\S+, \d\d% .*\n  allowed: 0 \(black\) to 4095 .*\n  next: scale its values"),
        (noise(0, 255), 1.0, "next: scale its values to this range"),
        (noise(0, 1), 65535.0, r"found: values from \S+ to 0.99\S+\n  allowed: 0 \(black\) to 65535"),
        *((noise(-2.1, 2.6), white, "next: rescale it so") for white in RANGES[1:]),
        (np.round(noise(0, 1)), 255.0, r"found: values from 0 to 1\n"),
        (np.full((2, 2), np.nan), 1.0, "found: NaN, 100% of them outside(?s:.)*replace NaN by numbers"),
        (np.full((2, 2), np.inf), 1.0, "found: values from inf to inf"),
    ],
)
def test_values_outside_of_the_range_are_refused(values, white, message):
    with pytest.raises(RangeError, match=message):
        levels(image(values), white)


def test_a_few_values_outside_are_clipped():
    values = noise(0, 1)
    values[0, :4] = (-3.0, 7.0, np.nan, np.inf)
    found = levels(image(values), 1.0)
    assert found[0, :4].tolist() == [0, 255, 0, 255]
    assert np.array_equal(found[1:], np.rint(values[1:] * 255))


def test_an_image_brighter_than_the_brightest_of_no_usual_range_is_white():
    assert levels(image([[0, 70000], [140000, 80000]], np.int32), 70000.0).tolist() == [[0, 255], [255, 255]]


def test_the_noise_around_black_is_no_range_of_its_own():
    assert levels(image(noise(-7, 14)), 4095.0).max() == 1  # a dark frame, subtracted from another
    assert levels(image(noise(-6, 4000)), 4095.0).max() > 240


def test_black_images_stay_black():
    assert levels(image(np.zeros((3, 3))), 65535.0).max() == 0
    assert levels(image([[0, 1]], np.uint16), 65535.0).max() == 0
