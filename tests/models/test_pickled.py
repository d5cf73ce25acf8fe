from __future__ import annotations

import argparse
import collections
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.models.pickled import Contents, contents_of

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
pytestmark = pytest.mark.parametrize("archive", [True, False], ids=["present format", "old format"])


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch pwned",)


def contents(folder: Path, value: object, *, archive: bool) -> Contents:
    torch.save(value, folder / "w.pth", _use_new_zipfile_serialization=archive)
    return contents_of(folder / "w.pth")


def test_names_are_those_that_torch_refuses(tmp_path: Path, archive: bool) -> None:
    assert contents(tmp_path, NETWORK.state_dict(), archive=archive) == Contents()
    value = {"args": argparse.Namespace(rate=0.1), "range": range(3), "model": NETWORK.state_dict()}
    assert contents(tmp_path, value, archive=archive) == Contents(("argparse.Namespace", "builtins.range"))


def test_a_module_is_named_wherever_it_is(tmp_path: Path, archive: bool) -> None:
    sequential = "torch.nn.modules.container.Sequential"
    for value in (NETWORK, {"epoch": 3, "args": argparse.Namespace(a=1), "model": NETWORK}):
        assert contents(tmp_path, value, archive=archive).module == sequential
    parallel = contents(tmp_path, nn.DataParallel(NETWORK), archive=archive)
    assert parallel.module == "torch.nn.parallel.data_parallel.DataParallel"
    names = collections.OrderedDict({"_parameters": torch.ones(1), "_modules": torch.ones(1)})
    assert contents(tmp_path, names, archive=archive).module is None


def test_nothing_is_run(tmp_path: Path, archive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert contents(tmp_path, {"a": _Evil()}, archive=archive).unsafe == (f"{os.name}.system",)
    assert not (tmp_path / "pwned").exists()


def test_every_damaged_file_is_one_without_contents(tmp_path: Path, archive: bool) -> None:
    contents(tmp_path, NETWORK, archive=archive)
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        found = contents_of(tmp_path / "cut.pth")
        assert found == Contents() or (not archive and found.module is not None)
