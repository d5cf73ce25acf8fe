"""How a training runs fastest: by rule where it is short, timed where it is long, once, and without a trace."""

from __future__ import annotations

import pytest
import torch

from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import AugmentSettings, StepSettings
from edgekd.training import throughput as tuning_module
from edgekd.training.fit import fit
from edgekd.training.objective import Supervised
from edgekd.training.stages import training_loader
from edgekd.training.throughput import Tuning, tune, tuning_of

STILL = AugmentSettings(crop="none", flip=False)
CPU = torch.device("cpu")


@pytest.fixture
def parts(small_digits):
    torch.manual_seed(0)
    model = build(Architecture(model="cifar/resnet8", num_classes=10))
    loader = training_loader(small_digits, StepSettings(batch_size=32), STILL)
    return model, Supervised(), lambda: next(iter(loader.epoch(0)))


def _set(parts, folder, steps, **settings) -> Tuning:
    model, objective, first = parts
    options = StepSettings(batch_size=32, **settings)
    return tune(model, objective, first, options, steps=steps, image_size=16, device=CPU, folder=folder)


def test_a_short_training_goes_by_rule(parts, tmp_path):
    tuning = _set(parts, tmp_path, steps=999)
    assert not tuning.step_ms and tuning.memory_format == "channels_last" and tuning.threads == torch.get_num_threads()


def test_a_long_one_is_timed_and_nothing_of_it_stays(parts, tmp_path):
    model = parts[0]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    tuning = _set(parts, tmp_path, steps=1000)
    assert {name.split(", ")[1] for name in tuning.step_ms} == {"channels_last", "contiguous"}
    assert all(ms > 0 for ms in tuning.step_ms.values())
    fastest = min(tuning.step_ms.values())
    assert tuning.step_ms[tuning.name] * 0.9 <= fastest  # 5 % for each of two choices
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_what_was_decided_is_kept(parts, tmp_path):
    first = _set(parts, tmp_path, steps=1000)
    assert _set(parts, tmp_path, steps=1000) == first and tuning_of(tmp_path)["threads"] == first.threads


def test_what_the_recipe_fixes_is_not_tried(parts, tmp_path):
    tuning = _set(parts, tmp_path, steps=1000, precision="fp32", memory_format="contiguous", threads=1)
    assert (tuning.precision, tuning.memory_format, tuning.threads) == ("fp32", "contiguous", 1)
    assert set(tuning.step_ms) <= {tuning.name}
    assert parts[0].conv1.weight.is_contiguous()


def test_threads_are_never_searched(parts, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    tuning = _set(parts, tmp_path, steps=1000)
    assert tuning.threads == 4 and len(tuning.step_ms) >= 2
    assert all(name.endswith("4 threads") for name in tuning.step_ms)


def test_the_clearly_faster_one_wins_and_mere_noise_does_not(monkeypatch):
    times = {"channels_last": 10.0, "contiguous": 9.8}
    trial = type("Trial", (), {"milliseconds": lambda self, tuning: times[tuning.memory_format]})()
    start = Tuning(1, "channels_last", "fp32")
    other = Tuning(1, "contiguous", "fp32")
    assert tuning_module._best(trial, start, [other], {})[0] == start
    times["contiguous"] = 9.0
    assert tuning_module._best(trial, start, [other], {})[0] == other


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
