from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.sources import image_folder
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

MakeFolder = Callable[[Mapping[str, int]], Path]


def settings(root: Path) -> DataSettings:
    return DataSettings(source="image-folder", root=root)


def names(root: Path, split: str = "train") -> list[str]:
    samples = image_folder.read(settings(root)).splits[split]  # type: ignore[index]
    return [samples.name(index) for index in range(len(samples))]


def test_classes_sorted_files_recursive_hidden_left_out(make_folder: MakeFolder) -> None:
    root = make_folder({"dog": 1, "cat/indoors": 1, "cat": 1, ".cache": 1, "dog/.hidden": 1})
    shutil.copy(root / "dog/0.png", root / "dog/.0.png")
    (root / "dog/notes.txt").touch()
    shutil.copytree(root / "cat", root / "__MACOSX/cat")
    (root / "cat/indoors/0.png").rename(root / "cat/indoors/0")
    raw = image_folder.read(settings(root))
    assert raw.classes == ("cat", "dog") and raw.splits["train"].labels.tolist() == [0, 0, 1]
    assert names(root) == ["cat/0.png", "cat/indoors/0", "dog/0.png"]
    assert str(raw.left_out) == "1 file (1 .txt), 1 hidden file, the folders .cache, .hidden, __MACOSX"


def test_what_lies_beside_the_classes_is_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"dog": 1, "cat": 1, ".": 1})
    for name in ("readme.txt", "dog/notes.txt", ".DS_Store", "cat/.DS_Store"):
        (root / name).touch()
    (root / "self").symlink_to("self")
    found = image_folder.read(settings(root))
    assert names(root) == ["cat/0.png", "dog/0.png"]
    assert str(found.left_out) == (
        "2 files (2 .txt), 1 image outside any class folder, 2 hidden files, "
        "1 link that leads nowhere or to a folder above (self)"
    )


def test_what_lies_beside_the_splits_and_their_classes_is_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 1, "train/b": 1, "test/a": 1, "test": 2, "test/.cache": 1})
    for name in ("readme.txt", "train/.DS_Store", "test/a/notes.md"):
        (root / name).touch()
    (root / "train/self").symlink_to("self")
    assert str(image_folder.read(settings(root)).left_out) == (
        "2 files (1 .md, 1 .txt), 2 images outside any class folder, 1 hidden file, the folder .cache, "
        "1 link that leads nowhere or to a folder above (train/self)"
    )


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "Validation"])
def test_splits_beside_train(make_folder: MakeFolder, folder: str) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, f"{folder}/a": 1, f"{folder}/b": 1, "test/b": 1})
    raw = image_folder.read(settings(root))
    assert {split: len(samples) for split, samples in raw.splits.items()} == {
        "train": 4, "validation": 2, "test": 1,
    }  # fmt: skip
    assert raw.splits["test"].labels.tolist() == [1] and names(root, "test") == ["test/b/0.png"]


def test_a_class_named_train(make_folder: MakeFolder) -> None:
    root = make_folder({"train": 2, "plane": 2})
    assert image_folder.read(settings(root)).classes == ("plane", "train")


def test_links_are_followed_but_not_in_circles(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 1, "b": 1, "c": 1})
    shutil.move(root / "c", tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a/again").symlink_to(root / "a")
    (root / "a/all").symlink_to(root)
    (root / "all").symlink_to(root)
    (root / "b/self").symlink_to("self")
    assert names(root) == ["a/0.png", "b/0.png", "c/0.png"]
    assert image_folder.fingerprint(settings(root))["files"] == 3
    left_out = str(image_folder.read(settings(root)).left_out)
    assert left_out == "4 links that lead nowhere or to a folder above (a/again, a/all, all, b/self)"


def test_a_link_that_leads_nowhere_is_a_broken_image(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    (root / "b/1.png").symlink_to(root / "gone.png")
    samples = image_folder.read(settings(root)).splits["train"]
    image_folder.fingerprint(settings(root))
    assert len(samples) == 3
    with pytest.raises(OSError, match=r"1\.png"):
        samples.image(2)


def test_exif_turns_the_image(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    image = Image.fromarray(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(10, 20, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(root / "b/0.png", exif=exif)
    turned = image_folder.read(settings(root)).splits["train"].image(1)
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no classes"),
        ({".": 2}, "2 images outside any class folder"),
        ({"a": 1, "b": 0, "c": 0}, "without images\n  found: b, c"),
        ({"a": 3}, "at least two classes"),
        ({"train/a": 1, "train/b": 1, "test/c": 1}, "test split has classes that train lacks\n  found: c"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "val/d": 1}, "validation split has classes.*\n  found: d"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, "two folders for one split"),
        ({"train/a": 1, "train/b": 1, "annotations": 0}, "not splits\n  found: annotations"),
        ({"train/a": 1, "train/b": 1, "test": 0}, "test has no classes"),
        ({"test/a": 1, "val/a": 1}, "no train folder"),
    ],
)
def test_what_cannot_be_used(make_folder: MakeFolder, counts: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_folder.read(settings(make_folder(counts)))


def test_the_fingerprint_follows_the_files(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    before = image_folder.fingerprint(settings(root))
    assert image_folder.fingerprint(settings(root)) == before and before["files"] == 4
    os.utime(root / "a/0.png", ns=(1, 1))
    touched = image_folder.fingerprint(settings(root))
    (root / "a/0.png").rename(root / "a/9.png")
    assert len({before["digest"], touched["digest"], image_folder.fingerprint(settings(root))["digest"]}) == 3


def test_a_root_that_is_one_folder_too_high_is_told_which_one_to_take(make_folder: MakeFolder) -> None:
    root = make_folder({"shapes/disc": 1, "shapes/ring": 1})
    with pytest.raises(DataError, match=r"one class only(?s:.)*next: set data.root to .*shapes, which has 2 folders"):
        image_folder.read(settings(root))


def test_the_order_of_the_classes_is_a_setting(make_folder: MakeFolder) -> None:
    root = make_folder({"10": 1, "2": 1, "1": 1})
    for order, classes in (("name", ("1", "10", "2")), ("natural", ("1", "2", "10"))):
        options = DataSettings(source="image-folder", root=root, class_order=order)  # type: ignore[arg-type]
        raw = image_folder.read(options)
        assert raw.classes == classes == image_folder.class_names(options)
        samples = raw.splits["train"]
        assert [samples.name(i) for i in range(3)] == [f"{name}/0.png" for name in classes]
