"""How a training runs fastest: by rule where it is short, timed where it is long, once, and without a trace."""

from __future__ import annotations

import pytest
import torch

from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import AugmentSettings, StepSettings
from edgekd.training import throughput as throughput
from edgekd.training.fit import fit
from edgekd.training.objective import Supervised
from edgekd.training.throughput import Tuning, tune, tuning_of
from edgekd.training.train import training_loader

STILL = AugmentSettings(crop="none", flip=False)
CPU = torch.device("cpu")


@pytest.fixture
def parts(small_digits):
    torch.manual_seed(0)
    model = build(Architecture(model="cifar/resnet8", num_classes=10))
    loader = training_loader(small_digits, StepSettings(batch_size=32), STILL)
    return model, Supervised(), loader


def _tuned(parts, folder, epochs, **settings) -> Tuning:
    model, objective, loader = parts
    return tune(model, objective, loader, StepSettings(epochs=epochs, **settings), device=CPU, folder=folder)


def test_a_short_training_goes_by_rule(parts, tmp_path):
    tuning = _tuned(parts, tmp_path, epochs=124)
    assert not tuning.step_ms and tuning.memory_format == "channels_last" and tuning.threads == torch.get_num_threads()


def test_a_long_one_is_timed_and_nothing_of_it_stays(parts, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    model = parts[0]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    tuning = _tuned(parts, tmp_path, epochs=125)
    assert {name.split(", ")[1] for name in tuning.step_ms} == {"channels_last", "contiguous"}
    assert all(ms > 0 for ms in tuning.step_ms.values())
    fastest = min(tuning.step_ms.values())
    assert tuning.step_ms[tuning.name] * 0.85 <= fastest  # 5 % for each of three choices
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_what_was_decided_is_kept(parts, tmp_path):
    first = _tuned(parts, tmp_path, epochs=125)
    assert _tuned(parts, tmp_path, epochs=125) == first and tuning_of(tmp_path)["threads"] == first.threads


def test_what_the_recipe_fixes_is_not_tried(parts, tmp_path):
    tuning = _tuned(parts, tmp_path, epochs=125, precision="fp32", memory_format="contiguous", threads=1)
    assert (tuning.precision, tuning.memory_format, tuning.threads) == ("fp32", "contiguous", 1)
    assert set(tuning.step_ms) <= {tuning.name}
    assert parts[0].conv1.weight.is_contiguous()


def test_the_clearly_faster_one_wins_and_a_mere_mood_does_not(monkeypatch):
    times = {"channels_last": 10.0, "contiguous": 9.8}
    trial = type("Trial", (), {"milliseconds": lambda self, tuning: times[tuning.memory_format]})()
    start = Tuning(1, "channels_last", "fp32")
    other = Tuning(1, "contiguous", "fp32")
    assert throughput._best(trial, start, [other], {})[0] == start
    times["contiguous"] = 9.0
    assert throughput._best(trial, start, [other], {})[0] == other


def test_both_formats_train_to_the_same_numbers(small_digits, tmp_path):
    losses = []
    for memory_format in ("channels_last", "contiguous"):
        torch.manual_seed(0)
        model = build(Architecture(model="cifar/resnet8", num_classes=10))
        settings = StepSettings(
            epochs=1, batch_size=64, learning_rate=0.01, precision="fp32", memory_format=memory_format
        )
        loader = training_loader(small_digits, settings, STILL)
        history = fit(model, Supervised(), loader, settings, resume=tmp_path / memory_format)
        losses.append(history[-1].loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
