from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.data.dataset import Dataset, names_of, open_split
from edgekd.data.prepare import expected, prepare
from edgekd.data.sources import csv_file
from edgekd.errors import DataError, RangeError, UnknownNameError
from edgekd.recipe.settings import DataSettings

MakeFolder = Callable[[Mapping[str, int]], Path]
SPLITS = ("train", "validation", "test")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Dataset]:
    def make(root: Path | None, source: str = "image-folder", **options: Any) -> Dataset:
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        out.mkdir()
        return prepare(DataSettings(source=source, root=root, **{"image_size": 16, **options}), out)

    return make


def counts(data: Dataset) -> list[int]:
    return [data.details.counts[split] for split in SPLITS]


def test_digits(run: Callable[..., Dataset]) -> None:
    data = run(None, "digits", image_size=32)
    assert sum(counts(data)) == 1797 and len(data.classes) == 10
    assert data.details.mirror is False and data.details.storage == "cached"
    assert not list(data.path.glob(".*")), "the scratch file is gone"
    for split in SPLITS:
        per_class = data.metrics["classes"][split].values()
        assert max(per_class) - min(per_class) <= 8
        assert np.bincount(open_split(data, split).labels).tolist() == list(per_class)
    Dataset.load(data.path)


def test_equal_runs_are_equal_and_seeds_differ(
    make_folder: MakeFolder, run: Callable[..., Dataset], tmp_path: Path
) -> None:
    root = make_folder({"a": 20, "b": 30})
    elsewhere = Path(shutil.copytree(root, tmp_path / "elsewhere"))
    one, same, other = run(root), run(elsewhere), run(root, seed=2**31 - 1)
    assert one.digest == same.digest != other.digest, "no path of this machine is part of a cached set"
    assert counts(one) == [36, 4, 10] == counts(other)


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_the_images_of_the_test_split_keep_their_names(
    make_folder: MakeFolder, run: Callable[..., Dataset], storage: str
) -> None:
    root = make_folder({"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 2})
    (root / "test" / "a" / "1.png").rename(root / "test" / "a" / "\x1b]0;ü\udcff.png")
    data = run(root, storage=storage)
    assert names_of(data, "test", [1, 4, 0]) == ["test/a/0.png", "test/b/1.png", "test/a/\\x1b]0;ü\\udcff.png"]
    assert names_of(data, "train", [7]) == ["train[7]"]


def test_the_sources_own_splits_are_kept(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    folders = {"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 2, "test/a": 3, "test/b": 4}
    assert counts(run(make_folder(folders))) == [20, 3, 7]


def test_validation_is_carved_from_train_only(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    assert counts(run(make_folder({"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 4}))) == [18, 2, 7]


def leaky(make_folder: MakeFolder) -> Path:
    """Two of train/a stand in test, one under another name and format; one of train/b twice in train."""
    root = make_folder({"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 3, "test/a": 3, "test/b": 3})
    shutil.copy(root / "train/a/0.png", root / "test/a/copy.png")
    Image.open(root / "train/a/1.png").save(root / "test/a/again.bmp")
    shutil.copy(root / "train/b/0.png", root / "train/b/copy.png")
    shutil.copy(root / "train/b/1.png", root / "train/a/mislabelled.png")
    return root


def test_leaks_are_dropped_from_train(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    data = run(leaky(make_folder))
    assert counts(data) == [20, 6, 8]
    assert data.metrics["leaks"]["dropped"] == {"train": 2}
    examples = [["train/a/0.png", "test/a/copy.png"], ["train/a/1.png", "test/a/again.bmp"]]
    assert data.metrics["leaks"]["pairs"] == [{"splits": ["train", "test"], "count": 2, "examples": examples}]
    assert data.metrics["duplicates"] == {"train": 2, "validation": 0, "test": 0}
    assert data.metrics["conflicting_labels"] == 1


def test_leaks_are_reported_or_refused(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = leaky(make_folder)
    reported = run(root, leaks="report")
    assert counts(reported) == [22, 6, 8] and reported.metrics["leaks"]["pairs"][0]["count"] == 2
    with pytest.raises(DataError, match=r"train/a/1\.png = test/a/again\.bmp"):
        run(root, leaks="refuse")


def test_a_class_that_leaks_whole_is_named(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = make_folder({"train/a": 5, "train/b": 1, "test/a": 2, "test/b": 0, "val/a": 1, "val/b": 1})
    shutil.copy(root / "train/b/0.png", root / "test/b/0.png")
    with pytest.raises(DataError, match="train split has no image of 1 of 2 classes\n  found: none of b"):
        run(root)


def test_duplicates_never_leak_by_carving(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = make_folder({"a": 8, "b": 8})
    for number in range(8):
        shutil.copy(root / f"a/{number}.png", root / f"a/copy{number}.png")
    data = run(root, leaks="refuse", test=0.3, validation=0.3)
    assert sum(data.metrics["duplicates"].values()) == 8


def test_broken_images_are_named(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = make_folder({"a": 20, "b": 20})
    whole = (root / "a/0.png").read_bytes()
    (root / "a/0.png").write_bytes(whole[:40])
    (root / "b/7.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 40 images cannot be read\n  found: a/0\.png(.|\n)*b/7\.png"):
        run(root, broken=0.01)
    data = run(root, broken=0.05)
    assert sum(counts(data)) == 38 and data.metrics["broken"]["count"] == 2
    assert [line.split(":")[0] for line in data.metrics["broken"]["examples"]] == ["a/0.png", "b/7.png"]
    shutil.copy(root / "b/8.png", root / "b/7.png")
    one = run(root)
    assert sum(counts(one)) == 39
    (warning,) = (text for text in one.metrics["warnings"] if "cannot be read" in text)
    assert warning.startswith("1 image cannot be read and is left out: a/0.png: ")


def test_only_the_first_twenty_broken_are_listed(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = make_folder({"a": 15, "b": 15})
    for file in root.rglob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="30 of 30(.|\n)*and 10 more"):
        run(root)


def test_the_limit_is_stratified_and_spares_the_other_splits(
    make_folder: MakeFolder, run: Callable[..., Dataset]
) -> None:
    root = make_folder({"a": 40, "b": 20})
    data = run(root, limit=9)
    assert data.metrics["classes"]["train"] == {"a": 6, "b": 3} and counts(data)[1:] == counts(run(root))[1:]
    with pytest.raises(DataError, match="data.limit"):
        run(root, limit=1)


def test_too_few_images_to_split(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    message = (
        "1 class has too few distinct images to be split\n  found: b \\(2\\)\n  allowed: 3 or more in each class, one "
        "for each split\n  next: add images to these classes, or remove the classes; or provide the splits"
    )
    root = make_folder({"a": 20, "b": 2})
    with pytest.raises(DataError, match=message):
        run(root)
    with pytest.raises(DataError, match=message):
        expected(DataSettings(source="image-folder", root=root))
    three = run(make_folder({"b": 3}), test=0.49)
    assert [three.metrics["classes"][split]["b"] for split in SPLITS] == [1, 1, 1]


def test_where_the_source_has_a_test_split_two_images_can_be_split(
    make_folder: MakeFolder, run: Callable[..., Dataset]
) -> None:
    data = run(make_folder({"train/a": 20, "train/b": 2, "test/a": 3, "test/b": 3}))
    assert [data.metrics["classes"][split]["b"] for split in SPLITS] == [1, 1, 3]
    with pytest.raises(DataError, match="found: c \\(1\\)\n  allowed: 2 or more"):
        run(make_folder({"train/c": 1}))


def test_an_unknown_source(run: Callable[..., Dataset]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'image-folder'"):
        run(None, "image_folder")


def test_a_split_of_the_source_that_lacks_a_class_is_measured_on_the_others(
    make_folder: MakeFolder, run: Callable[..., Dataset]
) -> None:
    data = run(make_folder({"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2, "test/b": 2}))
    warning = data.metrics["warnings"][0]
    assert warning == "The test split has no image of a: what is measured on it says nothing about this class."
    assert data.metrics["split_off"] == []


def test_rare_classes_are_named(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    data = run(make_folder({"train/a": 41, "train/b": 4, "train/c": 5, "test/a": 1, "test/b": 1, "test/c": 1}))
    assert data.metrics["split_off"] == ["validation"]
    (warning,) = [each for each in data.metrics["warnings"] if "less than a tenth" in each]
    assert warning.startswith("1 of 3 classes has less than a tenth of the training images of a (")
    assert ": b (" in warning


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_classes_in_natural_order_keep_their_images(
    make_folder: MakeFolder, run: Callable[..., Dataset], storage: str
) -> None:
    root = make_folder({"10": 6, "2": 5, "1": 4})
    data = run(root, class_order="natural", storage=storage)
    assert data.classes == ("1", "2", "10") and data.metrics["class_order"] == "natural"
    seen = {
        (name, pixels.tobytes())
        for split in SPLITS
        for name, pixels in zip(
            (data.classes[label] for label in open_split(data, split).labels),
            open_split(data, split).pixels(np.arange(data.details.counts[split])),
            strict=True,
        )
    }
    fitted = data.details.preprocessing.fitted
    assert seen == {(file.parent.name, fitted(Image.open(file)).tobytes()) for file in root.rglob("*.png")}


def test_equal_images_of_two_classes_are_a_warning(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = make_folder({"a": 20, "b": 20})
    shutil.copy(root / "a/3.png", root / "b/copy.png")
    data = run(root)
    assert data.metrics["conflicting_labels"] == 1
    equal = [{"file": "a/3.png", "label": "a"}, {"file": "b/copy.png", "label": "b"}]
    assert data.metrics["conflicts"] == [equal]
    warnings = " ".join(data.metrics["warnings"])
    assert "1 image occurs with more than one label. Equal are a/3.png (a), b/copy.png (b). Remove" in warnings


def test_equal_images_of_other_sets_of_labels_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"photos": 20})
    shutil.copy(root / "photos/0.png", root / "photos/copy.png")
    rows = [f"photos/{number}.png,{'ab'[number % 2]}" for number in range(20)]
    (root / "tags.csv").write_text("\n".join(["file,label", *rows, "photos/copy.png,a|b"]))
    options = {"root": root / "tags.csv", "task": "multilabel", "label_separator": "|", "image_size": 16}
    (tmp_path / "out").mkdir()
    data = prepare(csv_file.SOURCE.settings.model_validate({"source": "csv-file", **options}), tmp_path / "out")
    labels = {each["file"]: each["label"] for each in data.metrics["conflicts"][0]}
    assert labels == {"photos/0.png": "a", "photos/copy.png": "a + b"}


def test_a_crop_that_discards_a_third_is_a_warning(run: Callable[..., Dataset], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "wide" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "wide" / name / f"{number}.png")
    cropped = [warning for warning in run(tmp_path / "wide").metrics["warnings"] if "crop discards" in warning]
    assert len(cropped) == 1 and "discards 33%" in cropped[0]
    for fitting in ({"fit": "pad"}, {"fit": "squash"}, {"image_size": [16, 24]}, {"image_size": [16, 20]}):
        assert not [one for one in run(tmp_path / "wide", **fitting).metrics["warnings"] if "crop discards" in one]


def test_a_few_deep_images_among_many_are_not_read_in_an_unknown_range(
    make_folder: MakeFolder, run: Callable[..., Dataset]
) -> None:
    root = make_folder({"a": 80, "b": 80})
    values = np.arange(120, dtype=np.uint16).reshape(12, 10) * 34
    Image.fromarray(values).save(root / "a/1.png")
    with pytest.raises(DataError, match=r"1 of 160 images is a greyscale image(?s:.)*found: a/1.png\n.*set data.depth"):
        run(root)
    assert run(root, depth=12).details.preprocessing.white == 4095
    Image.fromarray(values.astype(np.float32)).save(root / "b/1.tif")
    with pytest.raises(DataError, match=r"2 of 161 images are(?s:.)*found: a/1.png\n +b/1.tif\n"):
        run(root)


def deep_folder(tmp_path: Path, scale: Callable[[str, int], tuple[float, float]]) -> Path:
    """Two classes of 20 float images, each with values from the first to the second number."""
    random = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.uniform(*scale(name, number), (12, 10)).astype(np.float32)
            Image.fromarray(pixels).save(tmp_path / "deep" / name / f"{number}.tif")
    return tmp_path / "deep"


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_images_with_values_below_0_are_refused_by_name(
    run: Callable[..., Dataset], tmp_path: Path, storage: str
) -> None:
    root = deep_folder(tmp_path, lambda name, number: (-2.0, 2.0) if (name, number) == ("a", 3) else (0.0, 1.0))
    with pytest.raises(RangeError, match=r"1 of 40 images has values outside(?s:.)*found: a/3.tif: values from -1.9"):
        run(root, storage=storage, broken=0.5)


def test_a_range_that_the_recipe_states_too_small_is_refused(run: Callable[..., Dataset], tmp_path: Path) -> None:
    root = deep_folder(tmp_path, lambda name, number: (0.0, 4095.0) if name == "a" else (0.0, 1023.0))
    with pytest.raises(RangeError, match=r"20 of 40 images(?s:.)*allowed: 0 \(black\) to 1023 (?s:.)*data.depth"):
        run(root, depth=10)
    assert run(root).details.preprocessing.white == 4095


def test_images_that_are_scaled_to_1_among_others_that_are_not(run: Callable[..., Dataset], tmp_path: Path) -> None:
    root = deep_folder(tmp_path, lambda name, number: (0.0, 1.0) if name == "b" else (0.0, 255.0))
    with pytest.raises(RangeError, match=r"20 of 40 images(?s:.)*found: b/0.tif: values from 0"):
        run(root)


def test_a_tiny_set_states_what_its_splits_are_worth(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    root = make_folder({"a": 3, "b": 3, "c": 3, "d": 3})
    data = run(root)
    assert counts(data) == [4, 4, 4]
    measured, trained = data.metrics["warnings"]
    assert measured.startswith("Only 4 validation images (1 per class) and 4 test images (1 per class)")
    assert trained.startswith("4 of 4 classes have fewer than 10 training images")
    planned, report = expected(DataSettings(source="image-folder", root=root, image_size=16))
    assert report["warnings"] == [measured, trained] and planned.counts == data.details.counts


def test_classes_that_are_written_in_two_ways(make_folder: MakeFolder, run: Callable[..., Dataset]) -> None:
    data = run(make_folder({"cat": 5, "Cat ": 5, "dog": 5}))
    assert data.classes == ("Cat ", "cat", "dog")
    assert 'Unicode form: "Cat ", "cat". They count as' in data.metrics["warnings"][0]


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_without_labels_are_no_classes(
    make_folder: MakeFolder, run: Callable[..., Dataset], count: int
) -> None:
    root = make_folder({"photos": count})
    if count > 1:
        shutil.copy(root / "photos/0.png", root / "photos/again.png")
    with pytest.raises(
        DataError, match="^too few distinct images to be split\n  found: [12] images?\n  allowed: 3"
    ) as no:
        run(root, "unlabelled")
    assert "class" not in str(no.value)
