from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.data.sources._shards import check_complete
from edgekd.errors import DataError


def files(*names: str) -> list[Path]:
    return [Path("root", name) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
        ("train-00001-of-00002.parquet", "train-00002-of-00002.parquet"),
        ("train-00000-of-00002-3f1a.parquet", "train-00001-of-00002-77bc.parquet"),
        ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"),
        ("train/1.parquet", "train/2.parquet"),
        # Years and numbers of different length are no series.
        ("train/2019.parquet", "train/2021.parquet"),
        ("train/1.parquet", "train/20240101.parquet"),
        ("train.parquet", "train-extra.parquet"),
    ],
)
def test_whole_series(names: tuple[str, ...]) -> None:
    check_complete(files(*names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train-00000-of-00002.parquet",),
            r"root lacks a file of a series: train-00001-of-00002\.parquet\n  found: 1 of 2: train-00000-of-00002",
        ),
        (
            ("train-00000-of-00003.parquet", "train-00002-of-00003.parquet"),
            r"lacks a file of a series: train-00001-of-00003\.parquet\n",
        ),
        (("train-00001-of-00002.parquet",), r": train-00000-of-00002\.parquet\n"),
        (("train-3-of-3.parquet",), r"lacks files of a series: train-1-of-3\.parquet, train-2-of-3\.parquet\n"),
        (("train-00000-of-00002-3f1a.parquet",), r": train-00001-of-00002…\.parquet\n"),
        (("train-00000-of-00009.parquet",), r"train-00005-of-00009\.parquet, …\n"),
        (("train-0-of-999999999999.parquet",), r"train-5-of-999999999999\.parquet, …\n"),
        (
            ("test-0-of-1.parquet", "train-0-of-1.parquet", "train-0-of-2.parquet", "train-1-of-2.parquet"),
            "series, of 1 and of 2\n  found: train-0-of-1.parquet, train-0-of-2.parquet, train-1-of-2.parquet",
        ),
        (("train-0-of-1.parquet", "train-0-of-1 (1).parquet"), r"twice\n  found: train-0-of-1 \(1\)\.parquet, train-0"),
        (("train/0000.parquet", "train/0002.parquet"), r"root/train lacks a file of a series: 0001\.parquet\n"),
    ],
)
def test_series_that_lack_a_file(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_complete(files(*names))
