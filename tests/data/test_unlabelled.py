"""Folders of images without classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.leaks import contents
from edgekd.data.sources import UNLABELLED
from edgekd.data.sources.unlabelled import content_of
from edgekd.data.unlabelled import Pool, prepare_pool
from edgekd.errors import DataError, RangeError
from edgekd.recipe.settings import DataSettings


def made(root: Path, out: Path, **settings) -> Pool:
    out.mkdir()
    data = DataSettings(source="digits", image_size=16, **settings)
    return prepare_pool(root, data, data.preprocessing, out)


def test_images_at_any_depth_are_read_and_hidden_ones_are_not(make_folder, tmp_path):
    root = make_folder({".": 2, "a/b/c": 3, ".trash": 4})
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes((root / "0.png").read_bytes())
    split = made(root, tmp_path / "pool").open()
    assert len(split) == 5 and split.labels.tolist() == [UNLABELLED] * 5
    assert split.pixels(np.array([0])).shape == (1, 16, 16, 3)


def test_streamed_equals_cached_and_notices_changes(make_folder, tmp_path):
    root = make_folder({"a": 4})
    cached, streamed = (made(root, tmp_path / way, storage=way) for way in ("cached", "streamed"))
    rows = np.array([3, 0, 1])
    assert np.array_equal(cached.open().pixels(rows), streamed.open().pixels(rows))
    assert streamed.open().streamed and not cached.open().streamed
    (root / "a" / "0.png").unlink()
    assert len(Pool.load(tmp_path / "cached").open()) == 4
    with pytest.raises(DataError, match="were changed"):
        streamed.open()


def test_a_few_broken_images_are_left_out_and_many_refused(make_folder, tmp_path):
    root = make_folder({"a": 9})
    (root / "torn.png").write_bytes((root / "a" / "0.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1 of 10 images(.|\n)*torn\.png(.|\n)*data\.broken"):
        made(root, tmp_path / "refused", broken=0)
    pool = made(root, tmp_path / "kept")
    assert len(pool.open()) == 9 and pool.metrics["broken"]["count"] == 1
    assert pool.metrics["warnings"][0].startswith("1 image cannot be read and is left out: torn.png: ")


def test_equal_images_have_equal_contents_whatever_they_are_called(make_folder, tmp_path):
    root = make_folder({"a": 3})
    Image.open(root / "a" / "1.png").save(root / "a" / "copy.bmp")
    found = contents(made(root, tmp_path / "pool").open())
    assert found[1] == found[3] and len(set(found)) == 3
    assert contents(Pool.load(tmp_path / "pool").open(), np.array([3])) == found[1:2]


def test_folders_that_are_none_or_hold_nothing(tmp_path):
    with pytest.raises(DataError, match="found: nothing"):
        content_of(tmp_path / "gone")
    with pytest.raises(DataError, match="has no images"):
        content_of(tmp_path)


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_images_outside_of_the_range_of_the_data_set_are_refused(tmp_path, storage):
    (tmp_path / "images").mkdir()
    for number, white in enumerate((4000, 60000)):
        Image.fromarray(np.full((9, 9), white, np.uint16)).save(tmp_path / "images" / f"{number}.png")
    with pytest.raises(RangeError, match=r"1 of 2 images under .* has(?s:.)*found: 1.png: values from 60000 to"):
        made(tmp_path / "images", tmp_path / "pool", depth=12, storage=storage)
