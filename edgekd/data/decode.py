"""Decodes every image of a source once: pixels for the cache, digests for finding duplicates, and broken images."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edgekd.data.sources import Samples
from edgekd.errors import DataError
from edgekd.runtime.preprocess import Pixels, square

# What Pillow's readers raise on damaged files.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Of many broken images, as many are listed in messages and manifests.
BROKEN_NAMED = 20
_BLOCK_BYTES = 8 << 20
_BLOCK_IMAGES = 64
_BLOCKS_AHEAD = 2


@dataclass(frozen=True)
class Decoded:
    """One image. `content` is its digest, None for a broken image; `pixels` is None where they were not requested."""

    content: bytes | None
    pixels: Pixels | None
    problem: str = ""


def decode_all(
    samples: Sequence[Samples], side: int, *, pixels: bool, progress: Callable[[int, int], None] | None = None
) -> Iterator[Decoded]:
    """Decode every image of every split, in order.

    Memory does not grow with the number of images: threads decode a few blocks ahead (Pillow releases the GIL).

    Args:
        samples: the splits.
        side: of the square that each image's centre is scaled to, in pixels.
        pixels: whether the squares are wanted, or only contents and problems.
        progress: called with (images done, images in total) after each block.
    """
    total, done = sum(map(len, samples)), 0
    size = max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // (side * side * 3)))
    workers = len(os.sched_getaffinity(0))
    blocks = ((s, range(i, min(i + size, len(s)))) for s in samples for i in range(0, len(s), size))
    waiting: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for split, indices in blocks:
                waiting.append(pool.submit(_decode_block, split, indices, side, pixels))
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
        allowed: the fraction of broken images that is skipped, 0 to 1.
        where: appended to "images" in the message, e.g. " under photos/".

    Raises:
        DataError: there are more.
    """
    count = len(problems)
    if count > allowed * total:
        more = f"\n    and {count - BROKEN_NAMED} more" if count > BROKEN_NAMED else ""
        raise DataError(
            f"{count} of {total} images{where} cannot be read",
            found="\n    ".join(problems[:BROKEN_NAMED]) + more,
            allowed=f"a fraction of {allowed:g} (data.broken)",
            hint="repair or remove them, or raise data.broken to skip them",
        )


def content_digest(image: Image.Image) -> bytes:
    """The digest of an image's pixels and size: the same for a lossless copy in another file or format."""
    array = np.ascontiguousarray(image)
    hashed = hashlib.blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    hashed.update(array.data)
    return hashed.digest()


def _decode_block(samples: Samples, indices: range, side: int, pixels: bool) -> list[Decoded]:
    return [_decode(samples, index, side, pixels) for index in indices]


def _decode(samples: Samples, index: int, side: int, pixels: bool) -> Decoded:
    try:
        image = _colour(samples.image(index))
        return Decoded(content_digest(image), square(image, side) if pixels else None)
    except BROKEN as error:
        return Decoded(None, None, f"{samples.name(index)}: {str(error).splitlines()[0] if str(error) else error!r}")


def _colour(image: Image.Image) -> Image.Image:
    """The image in RGB; 16-bit grey is left to square(), which scales it correctly."""
    return image if image.mode == "RGB" or image.mode[0] == "I" else image.convert("RGB")


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> int:
    if progress is not None:
        progress(done, total)
    return done
