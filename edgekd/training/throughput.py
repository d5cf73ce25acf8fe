"""How a training runs fastest on this machine: decided by a few timed steps, once, and kept for every resumption.

Threads are tried as well: on two cores that others use, two threads took 15 to 20 times as long as one.
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
from edgekd.store.artifacts import read_json, write_json
from edgekd.training.host import autocast, possible_precisions, training_precision

Format = Literal["channels_last", "contiguous"]

# A trial costs some 30 steps: shorter trainings go by the rules, and are the same on every machine.
_WORTH_TIMING = 1000
_WARM, _TIMED = 2, 5
# Less is noise.
_CLEARLY_FASTER = 0.95
_FILE = "throughput.json"


@dataclass(frozen=True)
class Tuning:
    """What was decided; `step_ms` are the medians of the steps that were timed, by what they were tried with."""

    threads: int
    memory_format: Format
    precision: Literal["fp32", "bf16"]
    step_ms: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.precision}, {self.memory_format}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def arrange(self, batch: Batch) -> Batch:
        """The loader's batches are channels_last."""
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
    """Decide, or read what was decided before the interruption; the model is put into the memory format.

    What the recipe fixes is kept. The rest goes by rules (channels_last; all threads; bf16 as in resolve_precision())
    on a GPU and for short trainings, and else by what is clearly faster: one thing after the other, starting from the
    rules. The trial leaves weights, buffers and random numbers as they were.

    Args:
        loader: the training's own; its first batch is timed.
        folder: where the decision is kept.
    """
    kept = folder / _FILE
    if kept.exists():
        tuning = Tuning(**read_json(kept))
    else:
        tuning = _by_rule(model, settings, loader.image_size, device)
        if device.type == "cpu" and len(loader) * settings.epochs >= _WORTH_TIMING:
            with _untouched(model, objective):
                trial = _Trial(model, objective, next(iter(loader.epoch(0))), device)
                tuning = _by_trial(tuning, trial, settings, loader.image_size)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(kept, asdict(tuning))
    into_format(model, tuning.memory_format)
    return tuning


def tuning_of(folder: Path) -> dict[str, object]:
    """What tune() decided, for a manifest."""
    return read_json(folder / _FILE)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def into_format(model: nn.Module, memory_format: Format) -> None:
    wanted = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    model.to(memory_format=wanted)


def _by_rule(model: nn.Module, settings: StepSettings, image_size: int, device: torch.device) -> Tuning:
    precision = training_precision(settings.precision, model, device, image_size)
    memory_format: Format = "channels_last" if settings.memory_format == "auto" else settings.memory_format
    return Tuning(settings.threads or torch.get_num_threads(), memory_format, precision)


def _by_trial(tuning: Tuning, trial: _Trial, settings: StepSettings, image_size: int) -> Tuning:
    options: list[Tuning] = []
    if settings.precision == "auto":
        found = possible_precisions(trial.model, trial.device, image_size)
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
        """One forward and backward pass: what a step costs but for the optimiser, which does not care."""
        into_format(self.model, tuning.memory_format)
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
def _untouched(model: nn.Module, objective: nn.Module) -> Iterator[None]:
    """Running statistics, memories of samples and random numbers are as before when it ends."""
    modules = (model, objective)
    kept = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    was_training = model.training
    model.train()
    with torch.random.fork_rng():
        yield
    model.train(was_training)
    for module, state in zip(modules, kept, strict=True):
        module.load_state_dict(state)
