from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.data import storage


def test_auto_caches_what_fits(tmp_path: Path) -> None:
    assert storage.choose("auto", (1000, 32, 32, 3), tmp_path) == "cached"
    assert storage.choose("auto", (1 << 30, 256, 256, 3), tmp_path) == "streamed"
    assert storage.choose("cached", (1 << 30, 256, 256, 3), tmp_path) == "cached"


def test_the_room_is_taken_before_anything_is_written(tmp_path: Path) -> None:
    """Else a full disk would show only while writing through the map, and kill the process."""
    with storage.scratch(tmp_path / "x", (100, 64, 64, 3)):
        assert (tmp_path / "x").stat().st_blocks * 512 >= 100 * 64 * 64 * 3


def test_rows_are_gathered_in_order(tmp_path: Path) -> None:
    rows = np.array([5, 2, 2])
    with storage.scratch(tmp_path / "x", (6, 4, 4, 3)) as pixels:
        pixels[:] = np.arange(6, dtype=np.uint8)[:, None, None, None]
        storage.write_cached(tmp_path, "train", pixels, rows, rows)
    assert not (tmp_path / "x").exists()
    assert np.load(tmp_path / "train.npy")[:, 0, 0, 0].tolist() == [5, 2, 2]
    assert np.load(tmp_path / "train-labels.npy").tolist() == [5, 2, 2]
