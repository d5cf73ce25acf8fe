"""Values and types of weights that a network cannot compute with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.state_files import choose
from edgekd.models.values import check_values
from edgekd.models.weights import load_state


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def broken(name: str, value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    state = {each: tensor.clone() for each, tensor in network().state_dict().items()}
    state[name] = state[name].to(dtype)
    state[name].view(-1)[0] = value
    return state


@pytest.mark.parametrize(
    ("name", "value", "dtype", "said"),
    [
        ("0.weight", float("nan"), torch.float32, "0.weight has NaN in 1 of 108 values"),
        ("3.bias", float("-inf"), torch.float16, "3.bias has infinity in 1 of 3 values"),
        ("3.bias", 1e300, torch.float64, "3.bias has infinity in 1 of 3 values"),
        ("1.running_mean", float("nan"), torch.bfloat16, "1.running_mean has NaN in 1 of 4 values"),
        ("1.running_var", -0.5, torch.float32, "1.running_var has a negative variance in 1 of 4 channels"),
    ],
)
def test_the_file_the_tensor_and_what_is_allowed_are_named(name, value, dtype, said):
    state = broken(name, value, dtype)
    with pytest.raises(ModelError) as refused:
        load_state(network(), state, origin="best.pth")
    told = str(refused.value)
    assert "the weights of best.pth have values" in told and f"in 1 of {len(state)} tensors: {said}" in told
    assert "allowed: finite numbers, and variances" in told and "earlier epoch" in told


def test_the_first_few_of_many_are_named():
    state = {name: tensor.float() * float("nan") for name, tensor in network().state_dict().items()}
    del state["1.num_batches_tracked"]
    with pytest.raises(ModelError, match=r"in 8 of 8 tensors: 0\.weight (?s:.)*0\.bias (?s:.)*1\.weight .* and 5 more"):
        check_values(network(), state, origin="w.pth")


class Masked(nn.Module):
    """With a constant of -infinity among its tensors, as attention has."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))


def test_a_constant_of_the_network_may_be_infinite():
    load_state(Masked(), Masked().state_dict(), origin="w.pth")
    with pytest.raises(ModelError, match="mask has infinity in 4 of 4 values"):
        load_state(Masked(), {"mask": torch.full((2, 2), float("inf"))}, origin="w.pth")


@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        (torch.int8, "int8"),
        (torch.uint8, "uint8"),
        (torch.bool, "bool"),
        (torch.complex64, "complex64"),
        (torch.float8_e4m3fn, "float8_e4m3fn"),
    ],
)
def test_weights_of_another_kind_are_not_cast_without_a_word(dtype, named):
    state = dict(network().state_dict())
    state["0.weight"] = (state["0.weight"] * 100).to(dtype)
    with pytest.raises(ModelError) as refused:
        load_state(network(), state, origin="w.pth")
    told = str(refused.value)
    assert f"1 tensor of another type, e.g. 0.weight is {named}, the network has float32" in told
    assert "allowed: float32, float64, float16 or bfloat16" in told and "quantized" in told


@pytest.mark.parametrize("classes", [3, 7])
def test_a_file_of_int8_steps_does_not_fit(tmp_path, classes):
    steps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes)).state_dict()
    steps["0.weight"] = (steps["0.weight"] * 100).to(torch.int8)
    torch.save({"state_dict": steps}, tmp_path / "int8.pth")
    with pytest.raises(ModelError, match=r"int8\.pth do not fit(?s:.)*0\.weight is int8, the network has float32"):
        choose(network(), tmp_path / "int8.pth", 3)


def test_float_weights_beside_the_quantized_ones_are_taken(tmp_path):
    state = network().state_dict()
    steps = {**state, "0.weight": state["0.weight"].to(torch.int8)}
    torch.save({"int8": steps, "float": state}, tmp_path / "both.pth")
    assert choose(network(), tmp_path / "both.pth", 3).label == "float"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken_and_so_are_counters(dtype):
    state = {name: tensor.to(dtype) for name, tensor in network().state_dict().items()}
    state["1.num_batches_tracked"] = torch.tensor(2.5, dtype=dtype)  # as an average over buffers has it
    loaded = network()
    load_state(loaded, state, origin="w.pth")
    assert torch.equal(loaded[0].weight, state["0.weight"].float())


class Indexed(nn.Module):
    """With indices and a scalar among its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor([0, 2]))
        self.register_buffer("factor", torch.tensor(2.0))


def test_only_what_keeps_its_value_may_change_its_kind():
    load_state(Indexed(), {"index": torch.tensor([0.0, 1.0]), "factor": torch.tensor(3)}, origin="w.pth")
    with pytest.raises(ModelError, match="index is float32, the network has int64"):
        load_state(Indexed(), {"index": torch.tensor([0.0, 1.5]), "factor": torch.tensor(2.0)}, origin="w.pth")


def test_tensors_without_data_and_sparse_ones_are_named(tmp_path):
    for given, named in (
        (torch.empty(4, 3, 3, 3, device="meta"), "meta"),
        (torch.zeros(4, 3, 3, 3).to_sparse(), "sparse_coo"),
    ):
        with pytest.raises(ModelError, match=f"0.weight is {named}"):
            load_state(network(), {**network().state_dict(), "0.weight": given}, origin="w.pth")


def test_copies_with_nan_are_one_candidate(tmp_path):
    """Their values are the problem, not which of them is meant."""
    torch.save({"model": broken("3.bias", float("nan")), "best": broken("3.bias", float("nan"))}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="several state dicts"):  # other random weights
        choose(network(), tmp_path / "w.pth", 3)
    state = broken("3.bias", float("nan"))
    torch.save({"model": state, "best": {name: tensor.clone() for name, tensor in state.items()}}, tmp_path / "w.pth")
    chosen = choose(network(), tmp_path / "w.pth", 3)
    with pytest.raises(ModelError, match="3.bias has NaN in 1 of 3 values"):
        load_state(network(), chosen.state, origin="w.pth")
