from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import OutOfMemoryError, StoreError
from edgekd.store import system_errors
from edgekd.store.system_errors import clear_system_errors


def test_a_full_disk_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "note.txt").symlink_to("/dev/full")  # answers every write as a full disk does
    message = r"no room left on the disk(?s:.)*B free(?s:.)*finished stages and epochs are kept"
    with pytest.raises(StoreError, match=message), clear_system_errors(tmp_path):
        (tmp_path / "note.txt").write_text("w" * 100_000)


def test_an_array_that_numpy_could_not_write_whole_is_one_too(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "x", tmp_path]).returncode:
        error = OSError("24576 requested and 20448 written")  # as NumPy words it
    else:
        try:
            with pytest.raises(OSError, match="requested and") as raised:
                np.save(tmp_path / "x.npy", np.ones(100_000))
        finally:
            subprocess.run(["umount", tmp_path], check=True)
        error = raised.value
    with pytest.raises(StoreError, match="no room left on the disk"), clear_system_errors(tmp_path):
        raise error


def test_the_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {tmp_path / "run": 10**9, tmp_path / "tmp": 10}
    monkeypatch.setattr(system_errors, "_free_bytes", free.__getitem__)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(StoreError, match=rf"no room left on the disk of {tmp_path}/tmp\n  found: 10 B free"):
        with clear_system_errors(tmp_path / "run"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_memory_that_runs_out_is_one_clear_message(tmp_path: Path, error: Exception) -> None:
    message = r"too little memory(?s:.)*finished stages are kept"
    with pytest.raises(OutOfMemoryError, match=message), clear_system_errors(tmp_path):
        raise error


def test_a_folder_without_rights_names_the_way_out(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "stages"))
    with (
        pytest.raises(StoreError, match=r"cannot be written: Permission denied(?s:.)*--out"),
        clear_system_errors(tmp_path),
    ):
        raise denied


@pytest.mark.parametrize("where", ["run/stages", "run", "above/run", "l" * 300])
def test_a_file_where_a_folder_has_to_be_names_the_way_out(tmp_path: Path, where: str) -> None:
    blocked = tmp_path / where.partition("/")[0] if where.startswith("above") else tmp_path / where
    if len(where) < 255:
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("a file")
    root = tmp_path / where.removesuffix("/stages")
    with pytest.raises(StoreError, match=r"cannot be written: (?s:.)*--out"), clear_system_errors(root):
        (root / "stages").mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "gone", "elsewhere")])
def test_any_other_error_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, clear_system_errors(tmp_path):
        raise error
    assert raised.value is error
