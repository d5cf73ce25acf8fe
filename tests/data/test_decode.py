from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from edgekd.data.decode import BROKEN_NAMED, check_broken, content_digest, decode_all, white_of
from edgekd.data.sources._arrays import ArraySamples
from edgekd.errors import DataError, PluginError
from edgekd.runtime.images import BROKEN
from edgekd.runtime.preprocess import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 9, 7, 3), dtype=np.uint8)
SIDE = Preprocessing((8, 8), (8, 8))
SAMPLES = ArraySamples("train", IMAGES, np.zeros(150))


def saved(image: Image.Image, kind: str) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, kind)
    return Image.open(stream)


def test_order_pixels_and_progress() -> None:
    reported: list[tuple[int, int]] = []
    decoded = list(decode_all([SAMPLES, SAMPLES], SIDE, pixels=True, progress=lambda *a: reported.append(a)))
    assert len(decoded) == 300 and reported[-1] == (300, 300) and reported == sorted(reported)
    for index, one in enumerate(decoded):
        image = SAMPLES.image(index % 150)
        assert one.pixels is not None and np.array_equal(one.pixels, SIDE.fitted(image))
        assert one.content == content_digest(image)


def test_without_pixels() -> None:
    decoded = list(decode_all([SAMPLES], SIDE, pixels=False))
    assert len(decoded) == 150
    assert all(one.pixels is None and one.content for one in decoded)


def test_stopping_early_leaves_no_thread_waiting() -> None:
    before = threading.active_count()
    stream = decode_all([SAMPLES] * 50, SIDE, pixels=True)
    next(stream)
    assert threading.active_count() > before
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm"])
def test_a_lossless_copy_has_the_same_content(kind: str) -> None:
    image = Image.fromarray(IMAGES[0])
    assert content_digest(saved(image, kind)) == content_digest(image)


def test_pixels_and_size_both_count() -> None:
    flat = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    assert content_digest(flat) != content_digest(flat.transpose(Image.Transpose.ROTATE_90))
    assert content_digest(Image.fromarray(IMAGES[0])) != content_digest(Image.fromarray(IMAGES[1]))


def test_grey_equals_its_colour_copy_and_sixteen_bits_are_read() -> None:
    grey = Image.fromarray(IMAGES[0, :, :, 0])
    deep = Image.fromarray(IMAGES[0, :, :, 0].astype(np.uint16) * 257)

    class Three(ArraySamples):
        def image(self, index: int) -> Image.Image:
            return (grey, grey.convert("RGB"), deep)[index]

    one, two, three = decode_all([Three("x", IMAGES[:3], np.zeros(3))], Preprocessing((7, 7), (7, 7)), pixels=True)
    assert one.content == two.content
    assert three.pixels is not None and np.array_equal(one.pixels, three.pixels)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*EXIF data:UserWarning")
@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp", "ppm"])
def test_damaged_files_raise_what_is_caught(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(IMAGES[0].repeat(9, 0).repeat(9, 1)).save(stream, kind)
    content = stream.getvalue()
    for damaged in (b"", content[: len(content) // 2], content[:20], b"\x00" * 100):
        with pytest.raises(BROKEN):
            Image.open(io.BytesIO(damaged)).load()


def test_more_broken_images_than_allowed_are_refused_and_the_first_are_listed() -> None:
    problems = [f"{number}.png: truncated" for number in range(BROKEN_NAMED + 5)]
    check_broken(problems, 100, 0.25)
    with pytest.raises(DataError, match=r"25 of 100 images under photos cannot be read(?s:.)*and 5 more") as refused:
        check_broken(problems, 100, 0.24, where=" under photos")
    check_broken(problems[:1], 2, 0.01)
    for count, total, allowed in ((2, 99, 0.01), (1, 99, 0.0), (1, 1, 0.01)):
        with pytest.raises(DataError, match="cannot be read"):
            check_broken(problems[:count], total, allowed)
    assert f"{BROKEN_NAMED - 1}.png" in str(refused.value) and f"{BROKEN_NAMED}.png" not in str(refused.value)


@pytest.mark.parametrize(
    ("largest", "dtype", "white"),
    [
        (255, np.uint16, 255.0),
        (256, np.uint16, 1023.0),
        (4095, np.uint16, 4095.0),
        (4096, np.uint16, 16383.0),
        (65535, np.uint16, 65535.0),
        (70000, np.int32, 70000.0),
        (0.5, np.float32, 1.0),
        (200.0, np.float32, 255.0),
        (255, np.uint8, None),  # no deep image: the default
    ],
)
def test_the_range_of_deep_images_is_that_of_the_largest_value(largest, dtype, white) -> None:
    class Deep(ArraySamples):
        def image(self, index: int) -> Image.Image:
            if index == 5:
                raise OSError("broken")
            return Image.fromarray(np.full((2, 2), largest if index == 100 else 0, dtype))

    assert white_of(Deep("x", IMAGES, np.zeros(150))) == white


@pytest.mark.parametrize("given", [np.zeros((2, 2, 3), np.uint8), None, "a.png"])
def test_a_source_that_gives_no_image_is_named(given: object) -> None:
    class Wrong(ArraySamples):
        def image(self, index: int) -> Image.Image:
            return given  # type: ignore[return-value]

    with pytest.raises(PluginError, match=rf"gave no image for .*\n  found: an object of type {type(given).__name__}"):
        list(decode_all([Wrong("x", IMAGES[:2], np.zeros(2))], SIDE, pixels=True))
    assert white_of(Wrong("x", IMAGES[:2], np.zeros(2))) is None


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (KeyError("label"), "x[0]: KeyError: 'label'"),
        (IndexError("list index out of range"), "x[0]: IndexError: list index out of range"),
        (ValueError(), "x[0]: ValueError"),
        (TypeError("bad\noperand"), "x[0]: TypeError: bad"),
        # What Pillow says of a file is worded for people.
        (OSError("image file is truncated"), "x[0]: image file is truncated"),
        (OSError(), "x[0]: OSError"),
        (
            FileNotFoundError(2, "No such file or directory", "a.png"),
            "x[0]: [Errno 2] No such file or directory: 'a.png'",
        ),
    ],
)
def test_what_a_sources_code_raises_is_named_with_its_type(error: Exception, problem: str) -> None:
    class Failing(ArraySamples):
        def image(self, index: int) -> Image.Image:
            raise error

    (decoded,) = decode_all([Failing("x", IMAGES[:1], np.zeros(1))], SIDE, pixels=False)
    assert decoded.content is None and decoded.problem == problem
