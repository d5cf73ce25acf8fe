from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data.dataset import Dataset, open_split
from edgekd.data.leaks import Rows, close_leaks, conflicting_labels, shared_rows
from edgekd.data.prepare import prepare
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

#                    0  1  2  3  4  5  6  7  8
CONTENTS = np.array([1, 2, 3, 3, 2, 4, 1, 4, 5])
ROWS: Rows = {"train": np.arange(4), "validation": np.arange(4, 6), "test": np.arange(6, 9)}


def test_drop_takes_from_the_side_that_trains() -> None:
    rows, report = close_leaks(ROWS, CONTENTS, "drop", str)
    assert {split: kept.tolist() for split, kept in rows.items()} == {
        "train": [2, 3], "validation": [4], "test": [6, 7, 8],
    }  # fmt: skip
    assert report.to_json() == {
        "policy": "drop",
        "pairs": [
            {"splits": ["train", "validation"], "count": 1, "examples": [["1", "4"]]},
            {"splits": ["train", "test"], "count": 1, "examples": [["0", "6"]]},
            {"splits": ["validation", "test"], "count": 1, "examples": [["5", "7"]]},
        ],
        "dropped": {"train": 2, "validation": 1},
    }


def test_report_changes_nothing() -> None:
    rows, report = close_leaks(ROWS, CONTENTS, "report", str)
    assert rows is ROWS and len(report.pairs) == 3 and report.to_json()["dropped"] == {}


def test_refuse_names_the_pairs() -> None:
    with pytest.raises(DataError, match="1 in train and test(.|\n)*0 = 6"):
        close_leaks(ROWS, CONTENTS, "refuse", str)


def test_without_leaks_every_policy_is_content() -> None:
    for policy in ("drop", "refuse", "report"):
        rows, report = close_leaks(ROWS, np.array([0, 1, 2, 2, 3, 4, 5, 6, 7]), policy, str)  # type: ignore[arg-type]
        assert not report.pairs and [len(rows[s]) for s in ("train", "validation", "test")] == [4, 2, 3]


def test_conflicting_labels_by_hand() -> None:
    assert conflicting_labels(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])) == [[0, 1]]
    found = conflicting_labels(np.array([4, 9, 2, 9, 9, 4, 2]), np.array([0, 1, 1, 1, 0, 0, 0]))
    assert found == [[1, 4, 3], [2, 6]], "one image of each label first"
    assert conflicting_labels(np.array([0, 1, 1]), np.array([0, 1, 1])) == []


def test_shared_rows_are_those_that_another_set_measures_with(tmp_path: Path) -> None:
    def made(name: str, **settings: Any) -> Dataset:
        (tmp_path / name).mkdir()
        return prepare(DataSettings(source="digits", **{"image_size": 8, **settings}), tmp_path / name)

    one, other = made("one"), made("other", seed=1)
    train = open_split(one, "train").pixels(np.arange(len(open_split(one, "train"))))
    measured = np.concatenate(
        [split.pixels(np.arange(len(split))) for split in (open_split(other, n) for n in ("validation", "test"))]
    )
    equal = (train.reshape(len(train), 1, -1) == measured.reshape(1, len(measured), -1)).all(2).any(1)
    found = shared_rows(one, "train", [other, one])
    assert len(found) > 100 and found.tolist() == np.flatnonzero(equal).tolist()
    assert shared_rows(one, "train", [one]).size == shared_rows(one, "train", []).size == 0
    with pytest.raises(DataError, match="different sizes"):
        shared_rows(one, "train", [made("larger", image_size=16)])
