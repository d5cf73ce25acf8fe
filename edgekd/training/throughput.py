"""Throughput tuning: a few timed steps choose how a training runs fastest; the choice is kept for resumed runs.

The number of threads comes first: on two cores that were busy, two threads took 15 to 20 times as long as one.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
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
from edgekd.store.artifacts import read_as, read_json, write_json
from edgekd.training.host import (
    Load,
    all_threads,
    autocast,
    in_words,
    possible_precisions,
    threads,
    training_precision,
)

Format = Literal["channels_last", "contiguous"]
Clock = Callable[[], float]

# The largest share of a training's steps that is spent on timing.
_SHARE = 1 / 4
_WARM, _TIMED = 1, 3
# Smaller differences are noise; for larger ones than the second, one pass is enough.
_CLEARLY_FASTER, _OBVIOUS = 0.9, 2.0
# Seconds of the training: what gains less is not worth that two runs of one recipe may choose differently.
_WORTH_IT = 1.0
_PASSES = _WARM + _TIMED
_FILE = "throughput.json"


@dataclass(frozen=True)
class Tuning:
    """The tuned settings.

    Attributes:
        step_ms: the median of each configuration that was timed.
        batch_size: the number of images in a step; not tuned.
    """

    threads: int
    memory_format: Format
    precision: Literal["fp32", "bf16"]
    step_ms: dict[str, float] = field(default_factory=dict)
    batch_size: int | None = None

    @property
    def name(self) -> str:
        return f"{self.precision}, {self.memory_format}, {in_words(self.threads)}"

    @property
    def seconds(self) -> float | None:
        """What a step was timed at."""
        ms = self.step_ms.get(self.name)
        return None if ms is None else ms / 1e3

    def on_half(self) -> Tuning:
        """The same on half of the threads."""
        return replace(self, threads=max(1, self.threads // 2))

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

    Settings that the recipe fixes are kept. The others start from rules (channels_last, one thread per usable core, the
    precision of resolve_precision()). On a CPU they are then timed one after another, threads first, and changed only
    where another value is clearly faster and saves a second; as many of them as a quarter of the training's steps
    allows. Weights, buffers and random state are left unchanged, so that a training depends on what is chosen, and not
    on how. Where other processes keep the machine busy, that is logged as a warning.

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
        tuning = read_as(kept, Tuning)
    else:
        tuning = _by_rule(model, settings, loader.shape, device)
        steps = len(loader) * settings.epochs
        if device.type == "cpu" and steps * _SHARE >= 2 * _PASSES:
            trial = _Trial(model, objective, next(iter(loader.epoch(0))), device, steps)
            with _state_restored(model, objective):
                tuning = _by_trial(tuning, trial, settings, loader.shape)
        folder.mkdir(parents=True, exist_ok=True)
        tuning = replace(tuning, batch_size=loader.batch_size)
        write_json(kept, asdict(tuning))
    to_memory_format(model, tuning.memory_format)
    return tuning


def tuning_of(folder: Path) -> dict[str, object]:
    """What tune() chose, for a manifest."""
    return read_json(folder / _FILE)


def threads_are_fixed(settings: StepSettings) -> bool:
    """Whether the recipe or OMP_NUM_THREADS sets their number."""
    return settings.threads is not None or "OMP_NUM_THREADS" in os.environ


def to_memory_format(model: nn.Module, memory_format: Format) -> None:
    wanted = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    model.to(memory_format=wanted)


def _by_rule(model: nn.Module, settings: StepSettings, shape: InputShape, device: torch.device) -> Tuning:
    precision = training_precision(settings.precision, model, device, shape)
    memory_format: Format = "channels_last" if settings.memory_format == "auto" else settings.memory_format
    return Tuning(settings.threads or torch.get_num_threads(), memory_format, precision)


def _by_trial(tuning: Tuning, trial: _Trial, settings: StepSettings, shape: InputShape) -> Tuning:
    load, fixed = Load(), threads_are_fixed(settings)
    whole = tuning if fixed else replace(tuning, threads=all_threads())
    if not trial.is_worth_it(tuning if fixed else whole.on_half()):
        return tuning
    best = whole if fixed else _fewer_threads(whole, trial, load)
    if settings.precision == "auto":
        for precision in possible_precisions(trial.model, trial.device, shape):
            best = trial.faster(best, replace(best, precision=precision))
    if settings.memory_format == "auto":
        best = trial.faster(best, replace(best, memory_format="contiguous"))
    load.tell(whole.threads, best.threads)
    return replace(best, step_ms={name: round(median(times), 3) for name, times in trial.times.items()})


def _fewer_threads(tuning: Tuning, trial: _Trial, load: Load) -> Tuning:
    """Halved as long as that helps; one thread on many cores would take long to time, and so would two on busy ones."""
    while tuning.threads > 1:
        fewer = tuning.on_half()
        trial.run_until_known(load, fewer)
        if (room := load.room(tuning.threads)) < tuning.threads:
            return _more_threads(replace(tuning, threads=room), trial, limit=tuning.threads)
        if trial.faster(tuning, fewer) == tuning:
            return tuning
        tuning = fewer
    return tuning


def _more_threads(tuning: Tuning, trial: _Trial, *, limit: int) -> Tuning:
    """Doubled as long as that helps, below a limit."""
    while 2 * tuning.threads < limit:
        more = replace(tuning, threads=2 * tuning.threads)
        if trial.faster(tuning, more) == tuning:
            return tuning
        tuning = more
    return tuning


@dataclass
class _Trial:
    """Times forward and backward passes; the optimiser's step does not depend on the settings.

    Attributes:
        steps: of the training.
        times: of each configuration, in milliseconds, where it was timed last.
    """

    model: nn.Module
    objective: nn.Module
    batch: Batch
    device: torch.device
    steps: int
    times: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._passes = int(_SHARE * self.steps)

    def is_worth_it(self, tuning: Tuning) -> bool:
        """Whether the training takes long enough."""
        return self._pass(tuning, time.perf_counter) * self.steps >= 1e3 * _WORTH_IT

    def faster(self, tuning: Tuning, other: Tuning) -> Tuning:
        """`other` if it is clearly faster; `tuning` if it is not, or if there are not enough passes to find out."""
        if tuning == other or self._passes < 2 * _PASSES:
            return tuning
        # Other processes lengthen the time of one thread, but not its CPU time.
        clock = time.process_time if tuning.threads == other.threads == 1 else time.perf_counter
        for each in (tuning, other):
            self._pass(each, clock)  # a warm-up
            self.times[each.name] = []
        # In turn, so that a load that comes or goes meets both; what is many times slower is not timed for long.
        while len(self.times[other.name]) < _TIMED:
            first, second = self._timed(tuning, clock), self._timed(other, clock)
            if max(first, second) > _OBVIOUS * min(first, second):
                break
        saved = (first - second) * self.steps
        return other if second < _CLEARLY_FASTER * first and saved >= 1e3 * _WORTH_IT else tuning

    def run_until_known(self, load: Load, tuning: Tuning) -> None:
        """Run a few passes, and no more than it takes to know the load."""
        for _ in range(min(_PASSES, self._passes - 2 * _PASSES)):
            if load.known:
                return
            self._pass(tuning, time.perf_counter)

    def _timed(self, tuning: Tuning, clock: Clock) -> float:
        """The median of a configuration's passes, with one more of them."""
        self.times[tuning.name].append(self._pass(tuning, clock))
        return median(self.times[tuning.name])

    def _pass(self, tuning: Tuning, clock: Clock) -> float:
        """Milliseconds on a clock that counts seconds."""
        self._passes -= 1
        to_memory_format(self.model, tuning.memory_format)
        batch = tuning.arrange(self.batch)
        with threads(tuning.threads):
            start = clock()
            with autocast(tuning.precision, self.device):
                terms: dict[str, Tensor] = self.objective(self.model, batch)
            torch.autograd.backward(torch.stack(list(terms.values())).sum())
            taken = 1e3 * (clock() - start)
        self.model.zero_grad(set_to_none=True)
        self.objective.zero_grad(set_to_none=True)
        return taken


@contextmanager
def _state_restored(model: nn.Module, objective: nn.Module) -> Iterator[None]:
    """Restores buffers, parameters, plain attributes and random state at the end of the context."""
    modules = (model, objective)
    kept = [copy.deepcopy(module.state_dict()) for module in modules]
    # Also of a loss from outside, which may count its calls.
    attributes = [(each, dict(vars(each))) for module in modules for each in module.modules()]
    model.train()
    with torch.random.fork_rng():
        yield
    for each, values in attributes:
        vars(each).clear()
        vars(each).update(values)
    for module, state in zip(modules, kept, strict=True):
        module.load_state_dict(state)
