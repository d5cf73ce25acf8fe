from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.data.dataset import Dataset, open_split
from edgekd.data.prepare import expected, prepare
from edgekd.data.sources import UNLABELLED, RawData, unlabelled
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings


def settings(root: Path, **further) -> DataSettings:
    return DataSettings(source="unlabelled", root=root, image_size=8, classes=("cat", "dog", "emu"), **further)


@pytest.fixture
def photos(make_folder) -> Path:
    root: Path = make_folder({".": 10, "holidays/beach": 20})
    (root / "notes.txt").write_text("no image")
    return root


def test_images_at_any_depth_are_one_split_without_labels(photos) -> None:
    raw = unlabelled.read(settings(photos))
    assert (
        raw.classes == ("cat", "dog", "emu") and set(raw.splits) == {"train"} and str(raw.left_out) == "1 file (1 .txt)"
    )
    assert raw.splits["train"].labels.tolist() == [UNLABELLED] * 30
    assert raw.splits["train"].name(29).startswith("holidays/beach/")


def test_they_are_split_at_random_and_reported_without_classes(photos, tmp_path) -> None:
    """Train, validation and test are disjoint, of the shares that were asked for, and together all images."""
    (tmp_path / "out").mkdir()
    asked = settings(photos, test=0.3, validation=0.1)
    data = prepare(asked, tmp_path / "out")
    assert data.details.counts == {"train": 19, "validation": 2, "test": 9} and not data.details.labelled
    splits = [open_split(data, name) for name in ("train", "validation", "test")]
    images = {split.pixels(np.array([row])).tobytes() for split in splits for row in range(len(split))}
    assert len(images) == 30 and all(set(split.labels.tolist()) == {UNLABELLED} for split in splits)
    assert data.metrics["classes"] == {} and "class" not in " ".join(data.metrics["warnings"])
    details, report = expected(asked)
    assert (details.counts, details.classes, details.labelled) == (data.details.counts, data.classes, False)
    assert report["split_off"] == data.metrics["split_off"] == ["validation", "test"]


def test_a_limit_draws_from_all_of_them(photos, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    assert prepare(settings(photos, limit=5), tmp_path / "out").details.counts["train"] == 5


def test_streamed_images_are_found_again(photos, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    prepare(settings(photos, storage="streamed"), tmp_path / "out")
    split = open_split(Dataset.load(tmp_path / "out"), "train")
    assert split.streamed and split.pixels(np.array([0])).shape == (1, 8, 8, 3)


def test_a_folder_without_images_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="has no images"):
        unlabelled.fingerprint(settings(tmp_path))
    with pytest.raises(DataError, match="is not a folder"):
        unlabelled.read(settings(tmp_path / "gone"))


def test_labels_of_a_source_without_labels_are_refused(photos) -> None:
    samples = unlabelled.read(settings(photos)).splits["train"]
    samples.labels = np.zeros(30, dtype=np.int64)
    with pytest.raises(DataError, match="labels outside"):
        RawData(("a", "b"), {"train": samples}, labelled=False)
