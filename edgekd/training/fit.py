"""The only training loop: teachers, distillation, recovery and quantization-aware distillation use it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgekd.data.loader import USUAL_BATCH, BatchSource, Loader
from edgekd.recipe.settings import StepSettings
from edgekd.runtime import average_precision
from edgekd.training.adaptive_threads import AdaptiveThreads
from edgekd.training.average import Average
from edgekd.training.compiling import Forward, compiled, compiling
from edgekd.training.guard import Guard, clear_errors
from edgekd.training.host import autocast, keep_freed_memory, threads
from edgekd.training.norms import raise_momentum
from edgekd.training.optimiser import make_optimiser, trainable
from edgekd.training.schedule import learning_rate, peak_rate
from edgekd.training.state import EpochRecord, TrainingState
from edgekd.training.throughput import Tuning, threads_are_fixed, tune

Progress = Callable[[int, int, str], None]
BeginEpoch = Callable[[nn.Module, int], None]
_LOG = logging.getLogger(__name__)
_SEEDS_PER_RUN = 1_000_003


@dataclass(frozen=True)
class _Loop:
    """A training's parts; `wrapped` is the model as Accelerate runs it, `forward` that or its compiled form."""

    accelerator: Accelerator
    model: nn.Module
    wrapped: nn.Module
    forward: Forward
    objective: nn.Module
    optimiser: torch.optim.Optimizer
    loader: BatchSource
    settings: StepSettings
    tuning: Tuning
    average: Average | None
    progress: Progress | None
    adaptive: AdaptiveThreads

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        return list(trainable((self.wrapped, self.objective)))

    @cached_property
    def peak_rate(self) -> float:
        return peak_rate(self.settings, self.loader.batch_size)

    @property
    def total_steps(self) -> int:
        return len(self.loader) * self.settings.epochs

    def restored(self, folder: Path) -> TrainingState:
        """The state to go on from: that of an interrupted run, or a new one. Raises TrainingError."""
        averaged = {"average": self.average.network} if self.average is not None else {}
        state = TrainingState(folder, {"model": self.model, "objective": self.objective, **averaged}, self.optimiser)
        state.restore()
        return state

    def epoch(self, epoch: int, validation: Loader | None) -> EpochRecord:
        """Train one epoch, and measure what it gives. Raises NonFiniteLossError, OutOfMemoryError."""
        self.adaptive.begin_epoch()
        device, loader = self.accelerator.device, self.loader
        with clear_errors(loader.batch_size, device), threads(self.adaptive.threads):
            start = time.perf_counter()
            terms, rate = self._steps(epoch)
            seconds = time.perf_counter() - start
            result = self.average.network if self.average is not None else self.model
            value = score(result, validation, device) if validation is not None else None
        speed, loss = len(loader) * loader.batch_size / seconds, sum(terms.values())
        return EpochRecord(epoch + 1, loss, terms, rate, speed, value, self.adaptive.threads)

    def _steps(self, epoch: int) -> tuple[dict[str, float], float]:
        """The steps of one epoch: the mean of each term, and the last learning rate."""
        self.wrapped.train()
        first = epoch * len(self.loader)
        guard = Guard(self.accelerator.device, epoch, first_step=first + 1)
        sums: dict[str, Tensor] = {}
        rate = 0.0
        for step, batch in enumerate(self.loader.epoch(epoch)):
            rate = self._set_rate(first + step)
            with autocast(self.tuning.precision, self.accelerator.device):
                terms = self.objective(self.forward, self.tuning.arrange(batch))
            loss = reduce(add, terms.values())
            guard.watch(step, loss, self._update(loss))
            if self.average is not None:
                self.average.update(self.wrapped, first + step)
            for name, value in terms.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            self.adaptive.step()
            self._show(epoch, first + step + 1)
        guard.check()
        return {name: float(value) / len(self.loader) for name, value in sums.items()}, rate

    def _update(self, loss: Tensor) -> Tensor:
        """Take one optimiser step; returns the gradient's norm before clipping."""
        self.accelerator.backward(loss)
        limit = self.settings.clip_norm if self.settings.clip_norm is not None else float("inf")
        # Accelerate's version takes twice the time, because it looks for sharded parameters, which do not occur here.
        norm: Tensor = nn.utils.clip_grad_norm_(self.parameters, limit)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def _set_rate(self, step: int) -> float:
        rate = learning_rate(
            step,
            peak=self.peak_rate,
            total=self.total_steps,
            warmup=round(self.settings.warmup_epochs * len(self.loader)),
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _show(self, epoch: int, done: int) -> None:
        if self.progress is not None:
            self.progress(done, self.total_steps, f"epoch {epoch + 1}/{self.settings.epochs}")


@dataclass(frozen=True)
class Callbacks:
    """What a training calls as it goes on.

    Attributes:
        progress: with the number of steps done, their number in all, and a note.
        begin_epoch: with the model and the number of epochs done, before each epoch that is trained here; after an
            interruption it is not called again for those that were finished.
    """

    progress: Progress | None = None
    begin_epoch: BeginEpoch | None = None


def fit(
    model: nn.Module,
    objective: nn.Module,
    loader: BatchSource,
    settings: StepSettings,
    *,
    resume: Path,
    validation: Loader | None = None,
    callbacks: Callbacks = Callbacks(),
) -> list[EpochRecord]:
    """Train `model` in place for all epochs, or for those that are left after an interruption.

    The final weights are those of the last epoch (or their moving average), not the best on the validation split. On a
    CPU with a fixed number of threads, a resumed run is bit-identical to an uninterrupted one; a tuned number is
    lowered while other processes use the cores.

    Args:
        model: (B, C, H, W) to (B, K) logits.
        objective: called with (model, batch), where the model may be compiled; returns the weighted terms by name, each
            a scalar, whose sum is minimised. Its own parameters are optimised, clipped and saved too.
        loader: the training batches.
        settings: of the training.
        resume: a folder for the state after each epoch, and for the result of tune().
        validation: images whose score is measured after each epoch.
        callbacks: called as the training goes on.

    Raises:
        NonFiniteLossError: the loss or its gradient became NaN or infinite.
        OutOfMemoryError: a batch does not fit.
        TrainingError: the saved state is damaged, or the network cannot be compiled as the settings ask.
    """
    keep_freed_memory()
    _tell_batch(loader, settings)
    # Around the timing too: a compiled teacher is compiled once.
    with compiling() if settings.compile else nullcontext():
        loop = _prepared(model, objective, loader, settings, callbacks.progress, resume)
        state = loop.restored(resume)
        for epoch in range(len(state.history), settings.epochs):
            torch.manual_seed(settings.seed * _SEEDS_PER_RUN + epoch)
            if callbacks.begin_epoch is not None:
                callbacks.begin_epoch(model, epoch)
            state.history.append(loop.epoch(epoch, validation))
            state.save()
    if loop.average is not None:
        model.load_state_dict(loop.average.network.state_dict())
    model.eval()
    return state.history


def _prepared(
    model: nn.Module,
    objective: nn.Module,
    loader: BatchSource,
    settings: StepSettings,
    progress: Progress | None,
    folder: Path,
) -> _Loop:
    """The parts of a loop, on their device; how it runs fastest is timed, or read from `folder`. Raises as fit()."""
    accelerator = Accelerator(mixed_precision="no")
    device = accelerator.device
    model.to(device)
    objective.to(device)
    raise_momentum(model, steps=len(loader) * settings.epochs)
    with clear_errors(loader.batch_size, device):
        tuning = tune(model, objective, loader, settings, device=device, folder=folder)
    wrapped = accelerator.prepare(model)
    fixed = device.type != "cpu" or threads_are_fixed(settings)
    return _Loop(
        accelerator=accelerator,
        model=model,
        wrapped=wrapped,
        forward=compiled(wrapped) if settings.compile else wrapped,
        objective=objective,
        # Not prepared: Accelerate's wrapper searches for packages in every step, 1.5 % of a small student's step, and
        # the rest of it is for scaled and accumulated gradients, which do not occur here.
        optimiser=make_optimiser((model, objective), settings, peak_rate(settings, loader.batch_size)),
        loader=loader,
        settings=settings,
        tuning=tuning,
        average=Average(model, settings.ema) if settings.ema is not None else None,
        progress=progress,
        adaptive=AdaptiveThreads(tuning.threads, fixed=fixed, usual=tuning.seconds),
    )


def _tell_batch(loader: BatchSource, settings: StepSettings) -> None:
    size, wanted = loader.batch_size, settings.batch_size
    if wanted is not None and size < wanted:
        _LOG.warning("batch_size %d is more than there are images: training in batches of %d", wanted, size)
    elif wanted is None and size < USUAL_BATCH:
        scaled = f" and with a learning rate of {peak_rate(settings, size):g}" if settings.learning_rate is None else ""
        _LOG.info("training in batches of %d%s, because the images are few; the recipe can set both", size, scaled)


def score(model: nn.Module, loader: Loader, device: torch.device | str = "cpu") -> float:
    """How good a model is in one figure: its accuracy, or for images of several labels its mAP. Args as accuracy()."""
    measure = mean_average_precision if loader.multilabel else accuracy
    return measure(model, loader, device)


@torch.no_grad()
def mean_average_precision(model: nn.Module, loader: Loader, device: torch.device | str = "cpu") -> float:
    """The mAP of a model on images of several labels; see edgekd.runtime.average_precision. Args as accuracy()."""
    device = torch.device(device)
    model.eval()
    seen = [(model(batch.images).float().cpu(), batch.targets.cpu()) for batch in loader.epoch(0)]
    logits, labels = (torch.cat(each).numpy() for each in zip(*seen, strict=True))
    return average_precision.mean_average_precision(logits, labels)


@torch.no_grad()
def accuracy(model: nn.Module, loader: Loader, device: torch.device | str = "cpu") -> float:
    """Top-1 accuracy of a model's first head on a loader's images, in float32 as its files are.

    Args:
        model: (B, C, H, W) to (B, K) logits; left in eval mode.
        loader: images on `device`, with the number of classes of the first head; without it, all logits count.
        device: of the model.

    Returns:
        A fraction, 0 to 1.
    """
    device = torch.device(device)
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for batch in loader.epoch(0):
        correct += (model(batch.images)[:, : loader.classes].argmax(1) == batch.targets).sum()
        count += len(batch.targets)
    return float(correct) / count
