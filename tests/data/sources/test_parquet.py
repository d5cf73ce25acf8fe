from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_files import PIXELS, png, read, table

from edgekd.data.dataset import open_split
from edgekd.data.prepare import prepare
from edgekd.data.sources import parquet
from edgekd.data.sources._columns import ColumnSettings
from edgekd.errors import DataError


def test_rows_across_files_and_row_groups(tmp_path: Path) -> None:
    pq.write_table(table([0, 1, 0, 1, 1]), tmp_path / "train-00000-of-00002.parquet", row_group_size=2)
    pq.write_table(table([1, 0, 1]), tmp_path / "train-00001-of-00002.parquet", row_group_size=2)
    pq.write_table(table([1, 0]), tmp_path / "validation.parquet")
    pq.write_table(table([0, 1]), tmp_path / "my_test.parquet")
    raw = read(tmp_path)
    train = raw.splits["train"]
    assert raw.classes == ("0", "1") and set(raw.splits) == {"train", "validation", "test"}
    assert train.labels.tolist() == [0, 1, 0, 1, 1, 1, 0, 1]
    assert [train.name(i)[-10:] for i in (4, 5)] == ["parquet[4]", "parquet[0]"]
    again = pickle.loads(pickle.dumps(train))
    for index, row in enumerate([0, 1, 2, 3, 4, 0, 1, 2]):
        assert np.array_equal(np.asarray(train.image(index)), PIXELS[row])
        assert np.array_equal(np.asarray(again.image(index)), PIXELS[row])
    assert parquet.fingerprint(ColumnSettings(source="parquet", root=tmp_path))["files"] == 4


@pytest.mark.parametrize("image", ["img", "image"])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_class_names_from_hugging_face(tmp_path: Path, image: str, label: str) -> None:
    pq.write_table(table([0, 1], image=image, label=label, names=["cat", "dog"]), tmp_path / "train.parquet")
    assert read(tmp_path).classes == ("cat", "dog")


def test_a_row_without_bytes_is_a_broken_image(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": "x.png"}, {"bytes": b"no image", "path": None}, None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = pa.table({"img": pa.array(rows, kind), "label": [0, 1, 0]})
    pq.write_table(made, tmp_path / "train.parquet")
    train = read(tmp_path).splits["train"]
    for index in range(3):
        with pytest.raises(OSError):
            train.image(index)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (table([0, 7], names=["a", "b"]), "labels outside the classes"),
        (table([0, 1, -1]), "labels outside the classes"),
        (table([0, None]), "rows without a label"),
        (table([0.0, 1.0]), "lacks a label column"),
        (table([0, 1], label="y"), "lacks a label column(?s:.)*next: set data.label_column: y"),
        (table([0, 1], image="photo"), "lacks an image column(?s:.)*next: set data.image_column: photo"),
        (pa.table({"img": [b"x", b"y"], "label": [0, 1]}), "lacks an image column"),
        (table([0, 1], names=b"{"), "metadata is not valid"),
        (table([0, 0]), "at least two classes"),
        (table([]), "lacks an image column|no training images|two classes"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, made: pa.Table, message: str) -> None:
    pq.write_table(made, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("below", ["", "data/", "default/"])
def test_folders_are_splits(tmp_path: Path, below: str) -> None:
    for name, labels in (("train/0000", [0, 1]), ("train/0001", [1]), ("Val/0000", [0]), ("test/0000", [1])):
        file = tmp_path / f"{below}{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(labels), file)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/train.parquet").write_text("no table")
    splits = read(tmp_path).splits
    found = {split: samples.labels.tolist() for split, samples in splits.items()}
    assert found == {"train": [0, 1, 1], "validation": [0], "test": [1]}


def test_two_data_sets_below_one_root_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("cats/train/0.parquet", "dogs/train-0.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        pq.write_table(table([0, 1]), tmp_path / name)
    with pytest.raises(DataError, match=r"several data sets\n  found: cats, dogs\n  next: name one: data.root: .*dogs"):
        read(tmp_path)
    assert len(read(tmp_path / "cats").splits["train"]) == 2


def test_columns_by_name(tmp_path: Path) -> None:
    made = table([0, 1, 2], image="photo", label="coarse_label", names=["a", "b", "c"])
    made = made.append_column("fine_label", pa.array([5, 6, 7]))
    pq.write_table(made, tmp_path / "train.parquet")
    raw = read(tmp_path, image_column="photo", label_column="coarse_label")
    assert raw.classes == ("a", "b", "c") and raw.splits["train"].labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"lacks a label column 'kind'(?s:.)*coarse_label or fine_label"):
        read(tmp_path, image_column="photo", label_column="kind")
    out = tmp_path / "prepared"
    out.mkdir()
    settings = ColumnSettings(
        source="parquet",
        root=tmp_path,
        image_column="photo",
        label_column="coarse_label",
        storage="streamed",
        image_size=8,
    )
    rows = [{"bytes": png(PIXELS[row]), "path": None} for row in range(12)]
    more = pa.table({"photo": rows, "coarse_label": [0, 1, 2] * 4, "label": [0] * 12})
    pq.write_table(more, tmp_path / "train.parquet")
    split = open_split(prepare(settings, out), "train")
    assert set(split.labels.tolist()) == {0, 1, 2} and split.pixels(np.array([0])).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("name", ["train_test.parquet", "latest.parquet", "0000.parquet", "train/test.parquet"])
def test_a_file_must_name_one_split(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    pq.write_table(table([0, 1]), tmp_path / name)
    with pytest.raises(DataError, match="must contain one split"):
        read(tmp_path)


def test_a_missing_file_of_a_series_is_named(tmp_path: Path) -> None:
    pq.write_table(table([0, 1]), tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match=r"lacks a file of a series: train-00001-of-00002\.parquet"):
        read(tmp_path)
    with pytest.raises(DataError, match="lacks a file"):
        parquet.fingerprint(ColumnSettings(source="parquet", root=tmp_path))


def test_no_training_file_and_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(tmp_path)
    (tmp_path / "train.parquet").unlink()
    pq.write_table(table([0, 1]), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="no training file"):
        read(tmp_path)


def test_splits_with_different_classes(tmp_path: Path) -> None:
    pq.write_table(table([0, 1], names=["a", "b"]), tmp_path / "train.parquet")
    pq.write_table(table([0, 1], names=["b", "a"]), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="different classes"):
        read(tmp_path)
