"""How a training runs fastest: timed where that is cheap, once, and without a trace."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from small_networks import Versioned

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


def test_a_training_of_a_few_steps_goes_by_rule(parts, tmp_path):
    tuning = _tuned(parts, tmp_path, epochs=3)  # 24 steps
    assert not tuning.step_ms and tuning.memory_format == "channels_last" and tuning.threads == torch.get_num_threads()


def test_networks_that_ask_for_their_version_are_timed():
    network = Versioned(2, 3)
    before = network.weight.clone()
    with throughput._state_restored(network, Supervised()), torch.no_grad():
        network.weight.zero_()
    assert torch.equal(network.weight, before)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(throughput, "_WORTH_IT", 0.0)


def test_a_training_of_less_than_a_second_goes_by_rule(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "_WORTH_IT", 1e6)
    assert not _tuned(parts, tmp_path, epochs=12).step_ms


def test_any_other_is_timed_and_nothing_of_it_stays(always, parts, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    model = parts[0]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    tuning = _tuned(parts, tmp_path, epochs=12)
    assert {name.split(", ")[1] for name in tuning.step_ms} == {"channels_last", "contiguous"}
    assert all(ms > 0 for ms in tuning.step_ms.values())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_what_was_decided_is_kept(always, parts, tmp_path):
    first = _tuned(parts, tmp_path, epochs=12)
    assert _tuned(parts, tmp_path, epochs=12) == first and tuning_of(tmp_path)["threads"] == first.threads


def test_what_the_recipe_fixes_is_not_tried(always, parts, tmp_path):
    tuning = _tuned(parts, tmp_path, epochs=12, precision="fp32", memory_format="contiguous", threads=1)
    assert tuning == Tuning(1, "contiguous", "fp32", batch_size=32)
    assert parts[0].conv1.weight.is_contiguous()


def test_a_training_depends_on_what_is_chosen_and_not_on_how(always, small_digits, tmp_path):
    def trained(folder, **fixed):
        torch.manual_seed(0)
        model = build(Architecture(model="cifar/resnet8", num_classes=10))
        settings = StepSettings(epochs=4, batch_size=16, learning_rate=0.01, **fixed)
        fit(model, Supervised(), training_loader(small_digits, settings, STILL), settings, resume=folder)
        return model.state_dict(), tuning_of(folder)

    timed, chosen = trained(tmp_path / "timed")
    assert chosen["step_ms"]
    fixed, _ = trained(tmp_path / "fixed", **{k: chosen[k] for k in ("precision", "memory_format", "threads")})
    assert all(torch.equal(value, fixed[name]) for name, value in timed.items())


class _Paced(throughput._Trial):
    """A trial whose passes take as long as a table says."""

    def __init__(self, steps: int, ms: dict[object, list[float]], by: str) -> None:
        super().__init__(None, None, None, CPU, steps)
        self.ms, self.by, self.ran = ms, by, []

    def _pass(self, tuning, clock):
        self._passes -= 1
        self.ran.append(getattr(tuning, self.by))
        times = self.ms[self.ran[-1]]
        return times[0] if len(times) == 1 else times.pop(0)


START = Tuning(2, "channels_last", "fp32")
CONTIGUOUS = Tuning(2, "contiguous", "fp32")


def test_the_clearly_faster_one_wins_and_noise_does_not():
    for ms, winner in ((9.3, START), (8.9, CONTIGUOUS)):
        trial = _Paced(10_000, {"channels_last": [10.0], "contiguous": [ms]}, "memory_format")
        assert trial.faster(START, CONTIGUOUS) == winner
        assert trial.ran == ["channels_last", "contiguous"] * 4


def test_a_load_that_goes_meets_both():
    ms = {"channels_last": [99.0, 30.0, 16.0, 10.0], "contiguous": [99.0, 29.0, 17.0, 10.0]}
    assert _Paced(10_000, ms, "memory_format").faster(START, CONTIGUOUS) == START


def test_what_is_many_times_slower_is_not_timed_for_long():
    trial = _Paced(10_000, {"channels_last": [10.0], "contiguous": [21.0]}, "memory_format")
    assert trial.faster(START, CONTIGUOUS) == START and trial.ran.count("contiguous") == 2


def test_timing_ends_with_its_passes():
    trial = _Paced(60, {"channels_last": [1.0], "contiguous": [100.0]}, "memory_format")
    assert trial.faster(CONTIGUOUS, START) == START
    trial.ms["contiguous"] = [0.1]
    while len(trial.ran) < 8:
        trial.faster(CONTIGUOUS, START)
    assert trial.faster(START, CONTIGUOUS) == START and len(trial.ran) <= 15  # a quarter


def test_what_saves_less_than_a_second_changes_nothing():
    ms = {"channels_last": [10.0], "contiguous": [5.0]}
    assert _Paced(199, ms, "memory_format").faster(START, CONTIGUOUS) == START
    assert _Paced(201, ms, "memory_format").faster(START, CONTIGUOUS) == CONTIGUOUS


class _Quiet:
    known = True

    def room(self, threads: int) -> int:
        return threads


class _Busy(_Quiet):
    told: ClassVar[list[tuple[int, int]]] = []

    def room(self, threads: int) -> int:
        return 1

    def tell(self, threads: int, chosen: int) -> None:
        self.told.append((threads, chosen))


def test_threads_are_halved_as_long_as_that_helps():
    trial = _Paced(10_000, {8: [30.0], 4: [20.0], 2: [19.0], 1: [30.0]}, "threads")
    assert throughput._fewer_threads(Tuning(8, "channels_last", "fp32"), trial, _Quiet()).threads == 4
    assert 1 not in trial.ran


@pytest.mark.parametrize(
    ("cores", "ms", "chosen"),
    [
        (2, {1: [10.0]}, 1),  # two are not even tried
        (16, {8: [1e6], 4: [8.0], 2: [8.0], 1: [10.0]}, 2),
    ],
)
def test_on_a_busy_machine_few_threads_are_tried_first(cores, ms, chosen):
    trial = _Paced(10_000, ms, "threads")
    assert throughput._fewer_threads(Tuning(cores, "channels_last", "fp32"), trial, _Busy()).threads == chosen
    assert 8 not in trial.ran and 16 not in trial.ran and cores not in trial.ran


def test_a_busy_machine_is_told_with_what_was_chosen(always, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "Load", _Busy)
    monkeypatch.setattr(throughput, "all_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert _tuned(parts, tmp_path, epochs=12, precision="fp32", memory_format="contiguous").threads == 1
    assert _Busy.told == [(8, 1)]


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
