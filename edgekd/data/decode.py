"""Decodes every image of a source once: pixels for the cache, digests for finding duplicates, and broken images."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from edgekd.data.sources import Samples
from edgekd.errors import DataError, PluginError, RangeError
from edgekd.runtime.cores import usable_cores
from edgekd.runtime.depth import RANGES, is_deep, largest
from edgekd.runtime.images import BROKEN, problem_of
from edgekd.runtime.preprocess import Pixels, Preprocessing, Size
from edgekd.wording import counted

# Of many broken images, as many are listed in messages and manifests.
BROKEN_NAMED = 20
_BLOCK_BYTES = 8 << 20
_BLOCK_IMAGES = 64
_BLOCKS_AHEAD = 2
_PROBED = 32


@dataclass(frozen=True)
class Decoded:
    """One image.

    Attributes:
        content: its digest; None for a broken image.
        pixels: None where they were not requested.
        size: height and width before it was fitted.
        deep: whether its range has to be known; see white_of().
        outside: what makes it lie outside of that range; it has no pixels then.
    """

    content: bytes | None
    pixels: Pixels | None
    problem: str = ""
    size: Size | None = None
    deep: bool = False
    outside: str = ""


def decode_all(
    samples: Sequence[Samples],
    preprocessing: Preprocessing,
    *,
    pixels: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Decoded]:
    """Decode every image of every split, in order.

    Memory does not grow with the number of images: threads decode a few blocks ahead (Pillow releases the GIL).

    Args:
        samples: the splits.
        preprocessing: how an image is fitted and scaled.
        pixels: whether they are wanted as pixels, or only contents and problems.
        progress: called with (images done, images in total) after each block.
    """
    total, done = sum(map(len, samples)), 0
    size = max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // math.prod(preprocessing.stored)))
    workers = usable_cores()
    blocks = ((s, range(i, min(i + size, len(s)))) for s in samples for i in range(0, len(s), size))
    waiting: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for split, indices in blocks:
                waiting.append(pool.submit(_decode_block, split, indices, preprocessing, pixels))
                if len(waiting) > workers * _BLOCKS_AHEAD:
                    yield from (block := waiting.popleft().result())
                    done = _report(progress, done + len(block), total)
            while waiting:
                yield from (block := waiting.popleft().result())
                done = _report(progress, done + len(block), total)
        finally:
            for future in waiting:
                future.cancel()


def check_broken(problems: Sequence[str], total: int, allowed: float, *, where: str = "") -> None:
    """Refuse a source with more broken images than the recipe allows.

    Args:
        problems: one line per broken image.
        total: the number of images, broken ones included.
        allowed: the fraction of broken images that is skipped, 0 to 1; at least one image is, except with 0.
        where: appended to "images" in the message, e.g. " under photos/".

    Raises:
        DataError: there are more.
    """
    count = len(problems)
    # Of few images a share is less than one; of a single one none would remain.
    most = max(1.0, allowed * total) if allowed and total > 1 else allowed * total
    if count > most:
        raise DataError(
            f"{count} of {counted(total, 'image')}{where} cannot be read",
            found=_listed(problems),
            allowed=f"a fraction of {allowed:g} (data.broken){', but at least one image' if allowed else ''}",
            hint="repair or remove them, or raise data.broken to skip them",
        )


def check_range(outside: Sequence[str], total: int, white: float, *, where: str = "") -> None:
    """Refuse a source with images outside of the range that its greyscale images of more than 8 bits are read in.

    Args:
        outside: one line per such image.
        total: the number of images.
        white: the end of the range.
        where: appended to "images" in the message.

    Raises:
        RangeError: there are some.
    """
    if outside:
        have = "has" if len(outside) == 1 else "have"
        raise RangeError(
            f"{len(outside)} of {counted(total, 'image')}{where} {have} values outside of the range of an image",
            found=_listed(outside),
            allowed=f"0 (black) to {white:g} (white)",
            hint="bring all images to one range in which black is 0; where they were normalised, undo that: value * "
            "std + mean. White is what data.depth sets, else the range of the brightest training image",
        )


def mixed_depths(deep: Sequence[str], total: int) -> DataError:
    """The refusal of a few deep images among many others, where white_of() has found no range.

    Args:
        deep: the names of the greyscale images of more than 8 bits or of float values.
        total: the number of images.
    """
    what = "is a greyscale image" if len(deep) == 1 else "are greyscale images"
    return DataError(
        f"{len(deep)} of {counted(total, 'image')} {what} of more than 8 bits, or of float values, among others; "
        "data.depth: auto looked at others only, so that the range of the values is not known",
        found=_listed(deep),
        hint="convert them to 8 bits like the others or remove them, or set data.depth to the number of bits they use",
    )


def white_of(samples: Samples) -> float | None:
    """The value that is white in a split's greyscale images of more than 8 bits or of float values.

    That is the end of the smallest usual range that holds all values: 0 to 1 for float values, 8 bits, 10, 12, 14, 16;
    beyond 16 bits the largest value. Where none of a few images is of that kind, the others are not decoded: None.
    """
    few = np.unique(np.linspace(0, len(samples) - 1, _PROBED).round().astype(np.int64))
    if not any(_largest(samples, int(index)) is not None for index in few):
        return None
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = [each for each in pool.map(partial(_largest, samples), range(len(samples))) if each is not None]
    floats, most = all(is_float for _, is_float in found), max(value for value, _ in found)
    if floats and most <= 1.0:
        return 1.0
    return next((white for white in RANGES[1:] if most <= white), most)


def _largest(samples: Samples, index: int) -> tuple[float, bool] | None:
    """A deep image's largest value, and whether it is a float; None for other images, and for those without a range."""
    try:
        image = samples.image(index)
        if not isinstance(image, Image.Image) or not is_deep(image):
            return None
        found = largest(image)
    except BROKEN:
        return None
    return None if found is None else (found, image.mode == "F")


def content_digest(image: Image.Image) -> bytes:
    """The digest of an image's pixels and size: the same for a lossless copy in another file or format."""
    array = np.ascontiguousarray(image)
    hashed = hashlib.blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    hashed.update(array.data)
    return hashed.digest()


def _listed(problems: Sequence[str]) -> str:
    more = f"\n    and {len(problems) - BROKEN_NAMED} more" if len(problems) > BROKEN_NAMED else ""
    return "\n    ".join(problems[:BROKEN_NAMED]) + more


def _decode_block(samples: Samples, indices: range, preprocessing: Preprocessing, pixels: bool) -> list[Decoded]:
    return [_decode(samples, index, preprocessing, pixels) for index in indices]


def _decode(samples: Samples, index: int, preprocessing: Preprocessing, pixels: bool) -> Decoded:
    try:
        image = samples.image(index)
        if not isinstance(image, Image.Image):
            raise PluginError(
                f"image() of the data source gave no image for {samples.name(index)}",
                found=f"an object of type {type(image).__name__}",
                allowed="an image of Pillow's: PIL.Image.fromarray(array)",
            )
        # A greyscale image has the content of its copy in colour, and a transparent one that of its colours.
        content = content_digest(image if is_deep(image) or image.mode == "RGB" else image.convert("RGB"))
        size = (image.height, image.width)
        try:
            # Of deep images without pixels only the range is checked.
            fitted = preprocessing.fitted(image) if pixels or is_deep(image) else None
        except RangeError as error:
            return Decoded(content, None, size=size, deep=True, outside=f"{samples.name(index)}: {error.found}")
        return Decoded(content, fitted if pixels else None, size=size, deep=is_deep(image))
    except BROKEN as error:
        return Decoded(None, None, f"{samples.name(index)}: {problem_of(error)}")


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> int:
    if progress is not None:
        progress(done, total)
    return done
