"""Throughput tuning: a few timed steps choose how a training runs fastest; the choice is kept for resumed runs.

The number of threads is tuned too: on two busy cores, two threads took 15 to 20 times as long as one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch, BatchSource
from edgekd.recipe.settings import StepSettings
from edgekd.runtime.preprocess import InputShape
from edgekd.store.artifacts import read_json, write_json
from edgekd.training.host import autocast, possible_precisions, training_precision

Format = Literal["channels_last", "contiguous"]

# A trial costs about 30 steps. Shorter trainings use fixed rules, which give equal results on every machine.
_WORTH_TIMING = 1000
_WARM, _TIMED = 2, 5
# Smaller differences are noise.
_CLEARLY_FASTER = 0.95
_FILE = "throughput.json"


@dataclass(frozen=True)
class Tuning:
    """The tuned settings; `step_ms` has the median step time of each configuration that was timed."""

    threads: int
    memory_format: Format
    precision: Literal["fp32", "bf16"]
    step_ms: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.precision}, {self.memory_format}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def arrange(self, batch: Batch) -> Batch:
        """A loader's batch, which is channels_last, in the tuned memory format."""
        if self.memory_format == "channels_last":
            return batch
        second = batch.second.contiguous() if batch.second is not None else None
        return replace(batch, images=batch.images.contiguous(), second=second)


def tune(
    model: nn.Module,
    objective: nn.Module,
    loader: BatchSource,
    settings: StepSettings,
    *,
    device: torch.device,
    folder: Path,
) -> Tuning:
    """Choose the settings, or read those from before an interruption; the model is converted to the memory format.

    Settings that the recipe fixes are kept. On a GPU and in short trainings the others follow rules (channels_last, all
    threads, the precision of resolve_precision()). Else they are tuned one after another, starting from the rules,
    and changed only where another value is clearly faster. Weights, buffers and random state are left unchanged.

    Args:
        model, objective: as in fit().
        loader: the training's own; its first batch is timed.
        settings: of the training; values other than "auto" are kept.
        device: of the training.
        folder: where the choice is kept.

    Raises:
        UsageError: see edgekd.training.host.training_precision().
    """
    kept = folder / _FILE
    if kept.exists():
        tuning = Tuning(**read_json(kept))
    else:
        tuning = _by_rule(model, settings, loader.shape, device)
        if device.type == "cpu" and len(loader) * settings.epochs >= _WORTH_TIMING:
            with _state_restored(model, objective):
                trial = _Trial(model, objective, next(iter(loader.epoch(0))), device)
                tuning = _by_trial(tuning, trial, settings, loader.shape)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(kept, asdict(tuning))
    to_memory_format(model, tuning.memory_format)
    return tuning


def tuning_of(folder: Path) -> dict[str, object]:
    """What tune() chose, for a manifest."""
    return read_json(folder / _FILE)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_memory_format(model: nn.Module, memory_format: Format) -> None:
    wanted = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    model.to(memory_format=wanted)


def _by_rule(model: nn.Module, settings: StepSettings, shape: InputShape, device: torch.device) -> Tuning:
    precision = training_precision(settings.precision, model, device, shape)
    memory_format: Format = "channels_last" if settings.memory_format == "auto" else settings.memory_format
    return Tuning(settings.threads or torch.get_num_threads(), memory_format, precision)


def _by_trial(tuning: Tuning, trial: _Trial, settings: StepSettings, shape: InputShape) -> Tuning:
    options: list[Tuning] = []
    if settings.precision == "auto":
        found = possible_precisions(trial.model, trial.device, shape)
        options += [replace(tuning, precision=precision) for precision in found]
    best, times = _best(trial, tuning, options, {})
    if settings.memory_format == "auto":
        best, times = _best(trial, best, [replace(best, memory_format="contiguous")], times)
    if settings.threads is None and "OMP_NUM_THREADS" not in os.environ:
        fewer = {1, max(1, best.threads // 2)} - {best.threads}
        best, times = _best(trial, best, [replace(best, threads=count) for count in sorted(fewer)], times)
    return replace(best, step_ms={name: round(ms, 3) for name, ms in times.items()})


def _best(
    trial: _Trial, tuning: Tuning, others: list[Tuning], times: dict[str, float]
) -> tuple[Tuning, dict[str, float]]:
    times = dict(times)
    for candidate in (tuning, *others):
        if candidate.name not in times:
            times[candidate.name] = trial.milliseconds(candidate)
        if times[candidate.name] < _CLEARLY_FASTER * times[tuning.name]:
            tuning = candidate
    return tuning, times


@dataclass(frozen=True)
class _Trial:
    model: nn.Module
    objective: nn.Module
    batch: Batch
    device: torch.device

    def milliseconds(self, tuning: Tuning) -> float:
        """The median time of a forward and backward pass; the optimiser's step does not depend on the settings."""
        to_memory_format(self.model, tuning.memory_format)
        batch, times = tuning.arrange(self.batch), []
        with threads(tuning.threads):
            for _ in range(_WARM + _TIMED):
                start = time.perf_counter()
                with autocast(tuning.precision, self.device):
                    terms: dict[str, Tensor] = self.objective(self.model, batch)
                torch.autograd.backward(torch.stack(list(terms.values())).sum())
                times.append(1e3 * (time.perf_counter() - start))
                self.model.zero_grad(set_to_none=True)
                self.objective.zero_grad(set_to_none=True)
        return median(times[_WARM:])


@contextmanager
def _state_restored(model: nn.Module, objective: nn.Module) -> Iterator[None]:
    """Restores buffers, parameters and random state at the end of the context."""
    modules = (model, objective)
    kept = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    was_training = model.training
    model.train()
    with torch.random.fork_rng():
        yield
    model.train(was_training)
    for module, state in zip(modules, kept, strict=True):
        module.load_state_dict(state)
