from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.weights import last_layer, load_state, read_state


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_state_dicts_as_trainers_save_them(tmp_path, wrap):
    model = nn.Linear(2, 3)
    torch.save(wrap({f"module.{name}": value for name, value in model.state_dict().items()}), tmp_path / "w.pth")
    again = nn.Linear(2, 3)
    load_state(again, read_state(tmp_path / "w.pth"), origin="w.pth")
    assert torch.equal(model.weight, again.weight)


def test_safetensors(tmp_path):
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors")
    assert set(read_state(tmp_path / "w.safetensors")) == {"weight", "bias"}


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _Evil()}, "evil.pth")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 not a zip"])
def test_corrupt_files_are_one_clear_message(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} cannot be read as weights"):
        read_state(tmp_path / name)


def test_a_missing_file_and_a_file_of_something_else(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_state(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="does not hold a state dict"):
        read_state(tmp_path / "list.pth")


def test_what_does_not_fit_is_listed():
    with pytest.raises(ModelError, match=r"1 tensors missing, e.g. bias; 1 tensors unexpected, e.g. head"):
        load_state(nn.Linear(2, 3), {"weight": torch.zeros(3, 2), "head": torch.zeros(1)}, origin="w.pth")
    with pytest.raises(ModelError, match=r"weight is \(4, 2\), the network has \(3, 2\)"):
        load_state(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), origin="w.pth")


def test_a_network_without_a_layer_of_that_many_rows_has_no_last_one():
    network = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 3))
    assert last_layer(network, 3) == "1"
    with pytest.raises(ModelError, match="no weights with 4 rows"):
        last_layer(network, 4)
