from __future__ import annotations

import pytest
import torch
from small_networks import Versioned
from torch import nn

from edgekd.errors import TrainingError
from edgekd.training.state import EpochRecord, TrainingState

RECORD = EpochRecord(1, 0.5, {"kd": 0.5}, 0.1, 100.0, None)


def state(folder, seed: int) -> TrainingState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Versioned(6, 2))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimiser.step()
    return TrainingState(folder, {"model": model}, optimiser)


def tensors(one: TrainingState) -> dict[str, torch.Tensor]:
    return dict(one._tensors())


def test_all_that_changes_comes_back_in_the_same_bits(tmp_path):
    saved, other = state(tmp_path, 0), state(tmp_path, 1)
    saved.history = [RECORD]
    assert any(not torch.equal(value, tensors(other)[name]) for name, value in tensors(saved).items())
    saved.save()
    other.restore()
    assert other.history == [RECORD]
    assert tensors(saved).keys() == tensors(other).keys()
    assert all(torch.equal(value, tensors(other)[name]) for name, value in tensors(saved).items())


def test_one_state_is_kept_and_a_half_written_one_is_not_taken(tmp_path):
    one = state(tmp_path, 0)
    for _ in (1, 2):
        one.history.append(RECORD)
        one.save()
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["epoch-2.safetensors"]
    (tmp_path / "epoch-3.safetensors").write_bytes(b"killed here")
    again = state(tmp_path, 1)
    again.restore()
    assert len(again.history) == 2


def test_nothing_saved_is_a_fresh_start(tmp_path):
    fresh = state(tmp_path / "nothing", 0)
    fresh.restore()
    assert fresh.history == []


@pytest.mark.parametrize(
    "damage", ["{", '{"file": "epoch-1.safetensors"}', '{"file": "gone", "sha256": "", "history": []}']
)
def test_a_damaged_head_is_refused(tmp_path, damage):
    (tmp_path / "head.json").write_text(damage)
    with pytest.raises(TrainingError, match=r"is damaged(?s:.)*delete"):
        state(tmp_path, 0).restore()
