from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from small_networks import Versioned
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.weights import last_layer, load_state, read_state


def test_safetensors(tmp_path):
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors")
    assert set(read_state(tmp_path / "w.safetensors")) == {"weight", "bias"}


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 64, b"PK\x03\x04 not a zip"])
def test_damaged_files_are_one_message(tmp_path, content):
    if content is not None:
        (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="w.safetensors cannot be read as weights"):
        read_state(tmp_path / "w.safetensors")


def test_networks_that_ask_for_their_version_load_weights_that_have_none(tmp_path):
    one, other = Versioned(2, 3), Versioned(2, 3)
    save_file(one.state_dict(), tmp_path / "w.safetensors")
    load_state(other, read_state(tmp_path / "w.safetensors"), origin="w")
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_what_does_not_fit_is_listed():
    with pytest.raises(ModelError, match=r"1 tensor missing, e.g. bias; 1 tensor unexpected, e.g. head"):
        load_state(nn.Linear(2, 3), {"weight": torch.zeros(3, 2), "head": torch.zeros(1)}, origin="w.pth")
    with pytest.raises(ModelError, match=r"weight is \(4, 2\), the network has \(3, 2\)"):
        load_state(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), origin="w.pth")


def test_a_network_without_a_layer_of_that_many_rows_has_no_last_one():
    network = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 3))
    assert last_layer(network, 3) == "1"
    with pytest.raises(ModelError, match="no weights with 4 rows"):
        last_layer(network, 4)
