"""Fashion-MNIST: 70,000 grey images of 28×28 pixels, from its IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data.sources import RawData, Source
from edgekd.data.sources._arrays import ArraySamples
from edgekd.data.sources._files import files_fingerprint, require_root
from edgekd.errors import DataError, require
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json

_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FOLDERS = (".", "raw", "FashionMNIST/raw")
_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_HOLDS = f"a folder with {_STEMS[0]}-ubyte[.gz] and its three siblings, or with them in raw/"
_UINT8 = 0x08


def fingerprint(settings: DataSettings) -> Json:
    """The files' fingerprint; before a download a constant.

    Raises:
        DataError: the files are missing and data.download is false.
    """
    if settings.download and settings.root is not None and not _find(settings.root):
        return {"download": "torchvision"}
    root = require_root(settings, _HOLDS)
    return files_fingerprint(root, _files(root))


def read(settings: DataSettings) -> RawData:
    """Raises DataError: a file is missing or malformed, or cannot be downloaded."""
    if settings.download and settings.root is not None and not _find(settings.root):
        _download(settings.root)
    train_images, train_labels, test_images, test_labels = _files(require_root(settings, _HOLDS))
    return RawData(
        _CLASSES,
        {
            "train": _samples("train", train_images, train_labels),
            "test": _samples("test", test_images, test_labels),
        },
    )


def _find(root: Path) -> list[Path]:
    """The four files, from the first folder that has them all; else none."""
    for folder in _FOLDERS:
        names = [[root / folder / f"{stem}-ubyte{suffix}" for suffix in ("", ".gz")] for stem in _STEMS]
        found = [next((path for path in pair if path.is_file()), None) for pair in names]
        if all(found):
            return [path for path in found if path is not None]
    return []


def _files(root: Path) -> list[Path]:
    if not (files := _find(root)):
        raise DataError(f"{root} does not hold Fashion-MNIST", allowed=_HOLDS, hint="or set data.download: true")
    return files


def _download(root: Path) -> None:
    datasets = require("torchvision.datasets", purpose="downloading Fashion-MNIST", extra="train")
    try:
        datasets.FashionMNIST(str(root), download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"Fashion-MNIST cannot be downloaded into {root}",
            found=str(error).splitlines()[0],
            hint="copy its four .gz files there yourself",
        ) from None


def _samples(name: str, images_file: Path, labels_file: Path) -> ArraySamples:
    images, labels = _read_idx(images_file, 3), _read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file.name} and {labels_file.name} do not belong together",
            found=f"{len(images)} images and {len(labels)} labels",
        )
    return ArraySamples(name, images, labels)


def _read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """An IDX file: two zeros, the type, the number of dimensions, each as a big-endian int32, the data."""
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, _UINT8, dimensions)):
        raise DataError(f"{path} is not an IDX file of {dimensions}-D bytes", found=f"begins with {content[:4].hex()}")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != np.prod(shape, dtype=np.uint64) or 0 in shape:
        raise DataError(f"{path} is truncated or damaged", found=f"{len(values)} bytes", allowed=f"shape {shape}")
    return values.reshape(shape)


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read", found=str(error)) from None


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True)
