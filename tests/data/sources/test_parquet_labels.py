"""Numbers and text as labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_files import png, read, table

from edgekd.data.dataset import open_split
from edgekd.data.prepare import prepare
from edgekd.data.sources import parquet
from edgekd.data.sources._columns import ColumnSettings
from edgekd.errors import DataError


def test_lists_of_labels_are_sets(tmp_path: Path) -> None:
    pq.write_table(table([[0, 2], [], [1]]), tmp_path / "train-0.parquet")
    pq.write_table(table([[1, 0]]), tmp_path / "train-1.parquet")
    pq.write_table(table([[0]]), tmp_path / "test.parquet")
    raw = read(tmp_path, task="multilabel")
    assert raw.classes == ("0", "1", "2") and raw.task == "multilabel"
    assert raw.splits["train"].labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert raw.splits["test"].labels.tolist() == [[1, 0, 0]]
    with pytest.raises(DataError, match="lacks a label column(?s:.)*allowed: whole numbers or text"):
        read(tmp_path)


@pytest.mark.parametrize("wrapped", [lambda names: {"feature": {"names": names}}, lambda names: [{"names": names}]])
def test_class_names_of_lists(tmp_path: Path, wrapped: Any) -> None:
    features = {"label": wrapped(["cat", "dog", "cow"])}
    made = table([[0], [1, 0]]).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(made, tmp_path / "train.parquet")
    raw = read(tmp_path, task="multilabel")
    assert raw.classes == ("cat", "dog", "cow") and raw.splits["train"].labels.shape == (2, 3)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1], None, "lacks a label column(?s:.)*allowed: lists of whole numbers or of text"),
        ([[0], [-1]], None, "labels that are no classes\n  found: -1"),
        ([[0], [None]], None, "labels that are no classes\n  found: None"),
        ([[0], None], None, "rows without a label\n  found: 1 of 2"),
        ([[0], [3]], ["a", "b"], "outside the classes\n  found: 3\n  allowed: 0 to 1"),
    ],
)
def test_lists_that_are_no_sets(tmp_path: Path, labels: list[Any], names: Any, message: str) -> None:
    pq.write_table(table(labels, names=names), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path, task="multilabel")


TEXT = ["10", "2", " 1", "2"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_is_a_class_name_and_the_recipe_orders_the_classes(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(table(pa.array(TEXT, pa.string()).cast(kind)), tmp_path / "train-0.parquet")
    pq.write_table(table(pa.array(["5", "10"]).cast(kind)), tmp_path / "train-1.parquet")
    pq.write_table(table(pa.array(["10", "1"]).cast(kind)), tmp_path / "test.parquet")
    expected = {"name": ("1", "10", "2", "5"), "natural": ("1", "2", "5", "10")}
    given = ("5", "1", "10", "2")
    for classes, options in ((expected[order], {"class_order": order}) for order in expected):
        raw = read(tmp_path, **options)
        assert raw.classes == classes and not raw.ordered
        assert [raw.classes[label] for label in raw.splits["train"].labels] == ["10", "2", "1", "2", "5", "10"]
        assert [raw.classes[label] for label in raw.splits["test"].labels] == ["10", "1"]
        assert parquet.class_names(ColumnSettings(source="parquet", root=tmp_path, **options)) == classes
    assert read(tmp_path, classes=given).classes == given
    with pytest.raises(DataError, match="data.classes are not the classes of the images"):
        read(tmp_path, classes=given[:3])


def test_lists_of_text_are_sets(tmp_path: Path) -> None:
    pq.write_table(table([["cat", "dog "], [], ["cow"]]), tmp_path / "train-0.parquet")
    pq.write_table(table(pa.array([[], []], pa.list_(pa.string()))), tmp_path / "train-1.parquet")
    pq.write_table(table([["dog"]]), tmp_path / "test.parquet")
    raw = read(tmp_path, task="multilabel")
    assert raw.classes == ("cat", "cow", "dog")
    assert raw.splits["train"].labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert raw.splits["test"].labels.tolist() == [[0, 0, 1]]


def test_numbers_keep_their_order_and_are_preferred_to_text(tmp_path: Path) -> None:
    made = table([0, 1], label="labels", names=["cat", "ape"]).append_column("label", pa.array(["cat", "ape"]))
    pq.write_table(made, tmp_path / "train.parquet")
    raw = read(tmp_path)
    assert raw.classes == ("cat", "ape") and raw.ordered
    assert parquet.class_names(ColumnSettings(source="parquet", root=tmp_path)) == ()
    assert read(tmp_path, label_column="label").classes == ("ape", "cat")
    for name, options in (("class_order", {"class_order": "natural"}), ("classes", {"classes": ("ape", "cat")})):
        with pytest.raises(DataError, match=f"data.{name} orders classes that are known by name, and the labels are"):
            read(tmp_path, **options)


@pytest.mark.parametrize(
    ("train", "test", "task", "message"),
    [
        (["a", "b"], ["c"], "single-label", "test split has classes that train lacks\n  found: c"),
        (["a", "b"], [0], "single-label", "labels of the test split are numbers, and those of train text"),
        ([0, 1], ["a"], "single-label", "labels of the test split are text, and those of train numbers"),
        (["a", None], ["a"], "single-label", "rows without a label\n  found: 1 of 2"),
        (["a", " "], ["a"], "single-label", "rows without a label\n  found: 1 of 2"),
        ([["a"], ["b"]], [["c"]], "multilabel", "test split has classes that train lacks\n  found: c"),
        ([["a"], ["b", ""]], [["a"]], "multilabel", "labels that are no classes\n  found: ''"),
        ([["a"], ["b", None]], [["a"]], "multilabel", "labels that are no classes\n  found: None"),
        (["a", "a"], ["a"], "single-label", "at least two classes"),
    ],
)
def test_text_that_cannot_be_used(tmp_path: Path, train: Any, test: Any, task: str, message: str) -> None:
    pq.write_table(table(train), tmp_path / "train.parquet")
    pq.write_table(table(test), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path, task=task)


def test_files_of_one_split_with_text_and_with_numbers(tmp_path: Path) -> None:
    pq.write_table(table(["a", "b"]), tmp_path / "train-0.parquet")
    pq.write_table(table([0, 1]), tmp_path / "train-1.parquet")
    with pytest.raises(DataError, match="labels as text, others as numbers\n  found: train-0.parquet, train-1.parquet"):
        read(tmp_path)


def test_a_prepared_set_of_text(tmp_path: Path) -> None:
    labels = ["dog", "cat", "cat"] * 20
    images = [{"bytes": png(np.full((4, 4, 3), row, np.uint8)), "path": None} for row in range(60)]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    (tmp_path / "out").mkdir()
    data = prepare(ColumnSettings(source="parquet", root=tmp_path, image_size=8, storage="streamed"), tmp_path / "out")
    assert data.classes == ("cat", "dog") and data.metrics["class_order"] == "name"
    seen = open_split(data, "train")
    levels = seen.pixels(np.arange(len(seen)))[:, 0, 0, 0]
    assert [data.classes[label] for label in seen.labels] == [labels[level] for level in levels]
