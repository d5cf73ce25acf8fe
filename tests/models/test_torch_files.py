"""What is read of a file beside its tensors."""

from __future__ import annotations

import collections
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.pickled import contents_of
from edgekd.models.torch_files import Arguments, read


@pytest.mark.parametrize("archive", [True, False], ids=["present format", "old format"])
@pytest.mark.parametrize("mapped", [True, False])
def test_tensors_plain_values_and_arguments_are_read(tmp_path: Path, archive: bool, mapped: bool) -> None:
    content = {
        "args": Namespace(lr=0.1, out=Path("x")),
        "log": collections.defaultdict(list, loss=[1.0]),
        "w": torch.arange(3.0),
    }
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    found = read(tmp_path / "w.pth", contents_of(tmp_path / "w.pth"), mapped=mapped)
    assert isinstance(found, dict) and isinstance(found["args"], Arguments)
    assert found["args"].values["lr"] == 0.1 and not isinstance(found["args"].values["out"], Path)
    assert found["log"] == {"loss": [1.0]} and torch.equal(found["w"], torch.arange(3.0))


def test_arguments_without_values_are_empty(tmp_path: Path) -> None:
    torch.save({"args": Namespace()}, tmp_path / "w.pth")
    found = read(tmp_path / "w.pth", contents_of(tmp_path / "w.pth"))
    assert isinstance(found, dict) and dict(found["args"].values) == {}


def test_a_damaged_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelError, match=r"w\.pth cannot be read as weights"):
        read(tmp_path / "w.pth", contents_of(tmp_path / "w.pth"), mapped=True)
