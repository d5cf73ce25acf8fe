from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from edgekd.data.sources import fashion_mnist
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = (np.arange(20) % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, *, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in ("train", "t10k"):
        for name, array in ((f"{prefix}-images-idx3", IMAGES), (f"{prefix}-labels-idx1", LABELS)):
            content = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / f"{name}-ubyte{'.gz' if zipped else ''}").write_bytes(content)


def settings(root: Path) -> DataSettings:
    return DataSettings(source="fashion-mnist", root=root)


@pytest.mark.parametrize("folder", [".", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_read_wherever_they_lie(tmp_path: Path, folder: str, zipped: bool) -> None:
    write(tmp_path / folder, zipped=zipped)
    raw = fashion_mnist.read(settings(tmp_path))
    assert raw.classes[9] == "Ankle boot" and set(raw.splits) == {"train", "test"}
    assert np.array_equal(np.asarray(raw.splits["test"].image(7)), IMAGES[7])
    assert raw.splits["train"].labels.tolist() == LABELS.tolist()
    assert fashion_mnist.fingerprint(settings(tmp_path))["files"] == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00\x0d\x03" + bytes(12), "begins with 00000d03"),
        (idx(IMAGES)[:-1], "truncated or damaged"),
        (idx(IMAGES) + b"x", "truncated or damaged"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**31), "truncated or damaged"),
        (idx(IMAGES[:3]), "3 images and 20 labels"),
    ],
)
def test_malformed_files(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, zipped=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=message):
        fashion_mnist.read(settings(tmp_path))


def test_a_damaged_archive(tmp_path: Path) -> None:
    write(tmp_path, zipped=True)
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    for damaged in (file.read_bytes()[:-9], b"no gzip", b"\x1f\x8b\x08\x00" + bytes(20)):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            fashion_mnist.read(settings(tmp_path))


def test_three_of_four_files_are_not_enough(tmp_path: Path) -> None:
    write(tmp_path, zipped=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="does not hold Fashion-MNIST"):
        fashion_mnist.fingerprint(settings(tmp_path))


def test_a_wanted_download_is_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    wanted = DataSettings(source="fashion-mnist", root=tmp_path, download=True)
    assert fashion_mnist.fingerprint(wanted) == {"download": "torchvision"}
