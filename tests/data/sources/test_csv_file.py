"""Images whose labels stand in a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.data.dataset import open_split
from edgekd.data.prepare import expected, prepare
from edgekd.data.sources import csv_file
from edgekd.errors import DataError

Write = Callable[[str], Path]


def settings(root: Path, **options: Any) -> csv_file.CsvFileSettings:
    return csv_file.CsvFileSettings(source="csv-file", root=root, image_size=8, **options)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table, and a different image for every file of it that has a name in digits."""
    generator = np.random.default_rng(0)

    def make(content: str) -> Path:
        for line in content.splitlines()[1:]:
            file = tmp_path / line.split(",")[0]
            if file.stem.isdigit():
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(file)
        (tmp_path / "labels.csv").write_text(content)
        return tmp_path / "labels.csv"

    return make


def rows(*labels: str) -> str:
    return "file,label\n" + "".join(f"in/{number}.png,{label}\n" for number, label in enumerate(labels))


def test_files_with_labels_in_order(write: Write) -> None:
    root = write(rows("10", "2", "1", "2"))
    for order, classes in (("name", ("1", "10", "2")), ("natural", ("1", "2", "10"))):
        raw = csv_file.read(settings(root, class_order=order))
        assert raw.classes == classes == csv_file.class_names(settings(root, class_order=order))
        samples = raw.splits["train"]
        found = {samples.name(i): raw.classes[label] for i, label in enumerate(samples.labels)}
        assert found == {"in/0.png": "10", "in/1.png": "2", "in/2.png": "1", "in/3.png": "2"}
    assert samples.image(0).size == (8, 9)


def test_columns_of_other_names_and_splits(write: Write) -> None:
    root = write(
        "photo,kind,label,fold\n0.png,a,x,train\n1.png,b,x,Train\n2.png,b,x,valid\n3.png,a,x,TEST\n4.png,b,x,test\n"
    )
    options = settings(root, image_column="photo", label_column="kind", split_column="fold")
    raw = csv_file.read(options)
    assert {split: samples.labels.tolist() for split, samples in raw.splits.items()} == {
        "train": [0, 1], "validation": [1], "test": [0, 1],
    }  # fmt: skip
    with pytest.raises(DataError, match="no split column 'part'"):
        csv_file.read(settings(root, image_column="photo", label_column="kind", split_column="part"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "file,label,split\n0.png,a,train\n1.png,b,dev\n",
            "splits of other names\n  found: dev\n  allowed: train, val",
        ),
        ("file,label,split\n0.png,a,train\n1.png,b,\n", "rows without a split\n  found: 1 of 2: line 3"),
        ("file,label,split\n0.png,a,train\n1.png,b,test\n", "test split has classes that train lacks\n  found: b"),
        ("file,label,split\n0.png,a,test\n1.png,b,test\n", "test split has classes that train lacks"),
        (rows("a", "a"), "at least two classes"),
        (
            "file,label\nx.png,a\ny.png,b\n",
            r"none of the files that .* exist\n  found: 2, e.g. .*x.png\n  next: paths",
        ),
        ("file,label\n0.png,a\n1.png,b\n0.png,b\n", "more than one label\n  found: 1: 0.png: a in line 2, b in line 4"),
    ],
)
def test_what_cannot_be_used(write: Write, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csv_file.read(settings(write(content)))


def test_a_folder_or_nothing_instead_of_a_table(write: Write, tmp_path: Path) -> None:
    write(rows("a", "b"))
    with pytest.raises(
        DataError, match=r"is not a file\n  found: a folder(?s:.)*next: set data.root to labels.csv in it"
    ):
        csv_file.read(settings(tmp_path))
    with pytest.raises(DataError, match="is not a file\n  found: nothing at"):
        csv_file.fingerprint(settings(tmp_path / "gone.csv"))
    with pytest.raises(DataError, match="needs a root"):
        csv_file.read(csv_file.CsvFileSettings(source="csv-file"))


def test_the_fingerprint_follows_table_and_files(write: Write, tmp_path: Path) -> None:
    root = write(rows("a", "b", "a"))
    found = [csv_file.fingerprint(settings(root)) for _ in range(2)]
    os.utime(tmp_path / "in/0.png", ns=(1, 1))
    found.append(csv_file.fingerprint(settings(root)))
    (tmp_path / "in/1.png").unlink()
    found.append(csv_file.fingerprint(settings(root)))
    root.write_text(root.read_text().replace("in/2.png,a", "in/2.png,b"))
    found.append(csv_file.fingerprint(settings(root)))
    assert found[0] == found[1] and len({str(each) for each in found}) == 4


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_a_data_set_with_missing_and_repeated_rows(write: Write, tmp_path: Path, storage: str) -> None:
    content = rows(*["a", "b"] * 20) + "in/0.png,a\n./in/1.png,b\ngone.png,a\nlost.png,b\n"
    root = write(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"2 of 42 images cannot be read\n  found: gone.png: .*No such file"):
        prepare(settings(root), tmp_path / "out")
    with pytest.raises(DataError, match=r"2 of 42 images cannot be read\n  found: gone.png: there is no such file"):
        expected(settings(root))
    (tmp_path / "data").mkdir()
    data = prepare(settings(root, broken=0.05, storage=storage), tmp_path / "data")
    assert data.metrics["warnings"][0] == "labels.csv repeats 2 rows; each counts once."
    assert data.metrics["broken"]["count"] == 2 and sum(data.details.counts.values()) == 40
    for split in ("train", "validation", "test"):
        opened = open_split(data, split)
        assert len(opened.pixels(np.arange(len(opened)))) == data.details.counts[split]


def test_a_file_in_two_splits_is_a_leak(write: Write, tmp_path: Path) -> None:
    train = "".join(f"{n}.png,{'ab'[n % 2]},train\n" for n in range(8))
    root = write(f"file,label,split\n{train}0.png,a,test\n8.png,b,test\n9.png,a,val\n10.png,b,val\n")
    (tmp_path / "out").mkdir()
    data = prepare(settings(root), tmp_path / "out")
    assert data.details.counts == {"train": 7, "validation": 2, "test": 2}
    assert data.metrics["leaks"]["dropped"] == {"train": 1}


def test_files_elsewhere_need_a_word(write: Write, tmp_path: Path) -> None:
    root = write(rows("a", "b"))
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    moved = root.rename(outside / "labels.csv")
    moved.write_text(moved.read_text().replace("in/", "../in/"))
    with pytest.raises(DataError, match="outside of its folder(?s:.)*next: .*data.outside_root: true"):
        csv_file.read(settings(moved))
    samples = csv_file.read(settings(moved, outside_root=True)).splits["train"]
    assert samples.image(1).size == (8, 9) and samples.name(1) == str(tmp_path / "in/1.png")


def sets_of(root: Path, **options: Any) -> tuple[tuple[str, ...], list[list[int]]]:
    raw = csv_file.read(settings(root, task="multilabel", **options))
    assert raw.task == "multilabel"
    return raw.classes, raw.splits["train"].labels.tolist()


def test_several_labels_in_one_value(write: Write) -> None:
    root = write("file,label\n0.png,b|10\n1.png,\n2.png, 2 | b |\n")
    assert sets_of(root) == (("10", "2", "b"), [[1, 0, 1], [0, 0, 0], [0, 1, 1]])
    assert sets_of(root, class_order="natural")[0] == ("2", "10", "b")
    root.write_text("file;tags\n0.png;a b\n1.png;b\n")
    assert sets_of(root, label_column="tags", label_separator=" ") == (("a", "b"), [[1, 1], [0, 1]])


def test_one_column_per_class(write: Write) -> None:
    root = write("file,dog,cat,split\n0.png,1,0,train\n1.png,0,0,train\n2.png,1.0,1,test\n")
    assert sets_of(root) == (("cat", "dog"), [[0, 1], [0, 0]])
    assert csv_file.class_names(settings(root, task="multilabel")) == ("cat", "dog")
    root.write_text("file,dog,cat,age\n0.png,1,0,7\n")
    with pytest.raises(
        DataError, match=r"not 0 or 1(?s:.)*found: '7' in age, line 2(?s:.)*next: set data.label_column"
    ):
        sets_of(root)
    root.write_text("file,split\n0.png,train\n")
    with pytest.raises(DataError, match="no label column"):
        sets_of(root)


def test_sets_that_contradict_each_other(write: Write) -> None:
    root = write("file,label\n0.png,a|b\n1.png,b\n0.png,b|a\n")
    assert sets_of(root)[1] == [[1, 1], [0, 1]], "the same set in another order"
    with pytest.raises(DataError, match=r"more than one label\n  found: 1: 0.png: a\|b in line 2, a in line 4"):
        sets_of(write("file,label\n0.png,a|b\n1.png,b\n0.png,a\n"))


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_a_prepared_set_of_sets(write: Write, tmp_path: Path, storage: str) -> None:
    labels = ["a|b", "a", "", "b|c", "a|c"] * 12
    root = write("file,label\n" + "".join(f"in/{n}.png,{label}\n" for n, label in enumerate(labels)))
    (tmp_path / "out").mkdir()
    data = prepare(settings(root, task="multilabel", storage=storage), tmp_path / "out")
    assert open_split(data, "test").pixels(np.arange(3)).shape == (3, 8, 8, 3)
    counts = data.details.counts
    assert data.multilabel and sum(counts.values()) == 60 and 10 <= counts["test"] <= 14
    stored = [open_split(data, split).labels for split in ("train", "validation", "test")]
    assert [each.shape for each in stored] == [(counts[split], 3) for split in ("train", "validation", "test")]
    for split, each in zip(("train", "validation", "test"), stored, strict=True):
        assert data.metrics["classes"][split] == dict(zip("abc", each.sum(0).tolist(), strict=True))
    assert stored[2].sum(0).tolist() == pytest.approx([7, 5, 5], abs=1), "a fifth of 36, 24 and 24"
    assert data.metrics["labels_per_image"] == pytest.approx(stored[0].sum() / len(stored[0]), abs=1e-4)
    assert data.metrics["without_labels"] == int((stored[0].sum(1) == 0).sum()) > 0
    (tmp_path / "few").mkdir()
    limited = prepare(settings(root, task="multilabel", limit=20), tmp_path / "few")
    assert limited.details.counts == {**counts, "train": 20}
