from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from edgekd.data.sources import cifar10, cifar100
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
LABELS = [index % 10 for index in range(20)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 whose checksums torchvision is told."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()

    def write(name: str, value: object) -> list[str]:
        content = pickle.dumps(value)
        (folder / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    batch = {"data": IMAGES.reshape(20, -1), "labels": LABELS}
    train, test = write("data_batch_1", batch), write("test_batch", batch)
    meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [train])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [test])
    meta_file = {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta_file)
    return tmp_path


def test_images_and_labels(root: Path) -> None:
    raw = cifar10.read(DataSettings(source="cifar10", root=root))
    assert raw.classes == tuple("abcdefghij") and set(raw.splits) == {"train", "test"}
    assert np.array_equal(np.asarray(raw.splits["test"].image(3)), IMAGES[3].transpose(1, 2, 0))
    assert raw.splits["train"].labels.tolist() == LABELS


def test_a_changed_file_is_not_unpickled(root: Path) -> None:
    file = root / datasets.CIFAR10.base_folder / "data_batch_1"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match="corrupted"):
        cifar10.read(DataSettings(source="cifar10", root=root))


def test_the_checksum_is_the_fingerprint_wherever_the_files_lie(root: Path, tmp_path: Path) -> None:
    there = cifar10.fingerprint(DataSettings(source="cifar10", root=root))
    wanted = cifar10.fingerprint(DataSettings(source="cifar10", root=tmp_path / "new", download=True))
    assert there == wanted == {"archive_md5": datasets.CIFAR10.tgz_md5}


def test_missing_files_state_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.download: true"):
        cifar100.read(DataSettings(source="cifar100", root=tmp_path))
    with pytest.raises(DataError, match="needs a root"):
        cifar100.fingerprint(DataSettings(source="cifar100", download=True))
