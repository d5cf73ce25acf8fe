"""Values and types of weights that a network cannot compute with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
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
