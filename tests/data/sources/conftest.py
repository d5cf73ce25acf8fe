from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.runtime.preprocess import Pixels

# How torchvision's class names the batches, the labels in them, and the class names in the meta file.
LAYOUTS: dict[str, tuple[str, str, str, str, str]] = {
    "CIFAR10": ("data_batch_1", "test_batch", "batches.meta", "labels", "label_names"),
    "CIFAR100": ("train", "test", "meta", "fine_labels", "fine_label_names"),
}


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a small CIFAR whose checksums torchvision accepts; returns the root."""

    def make(class_name: str, images: Pixels, labels: list[int], classes: list[str], **more: list[int]) -> Path:
        from torchvision import datasets

        dataset: Any = getattr(datasets, class_name)
        train, test, meta, labelled, named = LAYOUTS[class_name]
        folder = tmp_path / dataset.base_folder
        folder.mkdir()

        def write(name: str, value: object) -> list[str]:
            content = pickle.dumps(value)
            (folder / name).write_bytes(content)
            return [name, hashlib.md5(content).hexdigest()]

        batch = {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), labelled: labels, **more}
        monkeypatch.setattr(dataset, "train_list", [write(train, batch)])
        monkeypatch.setattr(dataset, "test_list", [write(test, batch)])
        _, checksum = write(meta, {named: classes})
        monkeypatch.setattr(dataset, "meta", {"filename": meta, "key": named, "md5": checksum})
        return tmp_path

    return make


@pytest.fixture
def images() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
