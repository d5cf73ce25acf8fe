from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgekd.data.dataset import Dataset, open_split
from edgekd.data.prepare import prepare
from edgekd.errors import ArtifactError, DataError
from edgekd.recipe.settings import DataSettings

MakeFolder = Callable[[Mapping[str, int]], Path]


def made(root: Path, out: Path, storage: Literal["cached", "streamed"]) -> Dataset:
    out.mkdir()
    return prepare(DataSettings(source="image-folder", root=root, image_size=16, storage=storage), out)


def test_streamed_equals_cached_and_both_pickle(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 12, "b": 12})
    cached, streamed = made(root, tmp_path / "c", "cached"), made(root, tmp_path / "s", "streamed")
    indices = np.array([3, 0, 3, 1])
    for name in ("train", "validation", "test"):
        one, other = open_split(cached, name), open_split(streamed, name)
        assert len(one) == len(other) and np.array_equal(one.labels, other.labels)
        assert (one.streamed, other.streamed) == (False, True)
        pixels = one.pixels(indices % len(one))
        assert pixels.shape == (4, 16, 16, 3) and pixels.dtype == np.uint8
        for split in (other, pickle.loads(pickle.dumps(one)), pickle.loads(pickle.dumps(other))):
            assert np.array_equal(split.pixels(indices % len(one)), pixels)
    assert len(pickle.dumps(open_split(cached, "train"))) < 1000
    assert not list(streamed.path.glob("train.npy"))


def test_images_that_changed_since_are_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 12, "b": 12})
    data = made(root, tmp_path / "s", "streamed")
    split = open_split(data, "train")
    for file in root.rglob("*.png"):
        file.write_bytes(b"gone")
    with pytest.raises(DataError, match="can no longer be read"):
        split.pixels(np.array([0]))
    with pytest.raises(DataError, match="were changed since"):
        open_split(data, "train")


def test_no_such_split_and_a_damaged_file(make_folder: MakeFolder, tmp_path: Path) -> None:
    data = made(make_folder({"a": 12, "b": 12}), tmp_path / "c", "cached")
    with pytest.raises(DataError, match="unknown split 'val'"):
        open_split(data, "val")
    (data.path / "train.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match="cannot be read as a data set"):
        open_split(data, "train")
