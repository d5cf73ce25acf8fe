"""One variant of a training, one turn per epoch: `python _training_worker.py JOB`, see _turns.py and _jobs.py."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from _jobs import Job
from _pillow import MEAN, STD, image_loader
from _turns import Turns
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch, Loader
from edgekd.distillation.distill import Live, objective_over
from edgekd.distillation.objective import Outputs, Source
from edgekd.distillation.outputs import Stored, TeacherOutputs
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import AugmentSettings
from edgekd.training.fit import Callbacks, fit
from edgekd.training.host import best_device, resolve_precision, training_precision
from edgekd.training.objective import Supervised
from edgekd.training.schedule import peak_rate
from edgekd.training.train import training_loader

Pairs = Iterable[tuple[Tensor, Tensor, Tensor | None]]


class SinglePrecision:
    """A teacher that is always in fp32; see edgekd.distillation.objective.Source."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        return Outputs(self._network(batch.images))


def network_of(job: Job, role: Literal["student", "teacher"]) -> nn.Module:
    network = build(job.architecture(role))
    network.load_state_dict(torch.load(job.path / f"{role}.pt", weights_only=True))
    return network.eval() if role == "teacher" else network


def open_data(job: Job) -> Dataset:
    return Dataset.load(job.path / "data")


def stored(job: Job) -> Stored:
    return Stored(TeacherOutputs.load(job.path / "outputs"), best_device())


def loader_of(job: Job, data: Dataset) -> Loader:
    return training_loader(data, job.settings, AugmentSettings(), views=1 if job.teacher == "stored" else None)


def fitted(job: Job, turns: Turns) -> None:
    """edgekd's own training, from one begin_epoch to the next, including data loading and saving the state."""
    data, student = open_data(job), network_of(job, "student")
    teacher = checkpoints.load(Checkpoint.load(job.path / "teacher"))
    if job.teacher == "none":
        objective: nn.Module = Supervised()
    else:
        sources: dict[str, Callable[[], Source | None]] = {
            "live": lambda: None,
            "fp32": lambda: SinglePrecision(teacher),
            "stored": lambda: stored(job),
        }
        network = teacher if job.teacher == "live" else None
        objective = objective_over(
            student,
            network,
            data,
            job.objective,
            source=sources[job.teacher](),
            # The untrained teacher has no comparison of bf16 with fp32, so the precision is set here.
            live=Live(resolve_precision("auto", teacher, best_device(), inference=True), compile=job.compile),
        )

    fit(
        student,
        objective,
        loader_of(job, data),
        job.settings,
        resume=Path(tempfile.mkdtemp(prefix="resume-", dir=job.path)),
        callbacks=Callbacks(
            progress=lambda *_: turns.step(threads=torch.get_num_threads()),
            begin_epoch=lambda *_: turns.next(),
        ),
    )
    turns.finish()


def streamed(job: Job, turns: Turns) -> None:
    """Only imports before the first turn, which is a whole training of one epoch."""
    turns.next()
    fitted(job, _Silent(turns))


class _Silent(Turns):
    """Reports only the end of the whole training."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def next(self, **figures: object) -> None:
        pass

    def step(self, **figures: object) -> None:
        self._turns.step(**figures)

    def finish(self, **figures: object) -> None:  # type: ignore[override]
        self._turns.finish(**figures)


def bare(job: Job, turns: Turns) -> None:
    """Student forward and backward, losses, clipping, a fused optimiser: the minimal cost of a step."""
    student = network_of(job, "student").train()
    if job.channels_last:
        student.to(memory_format=torch.channels_last)
    precision = training_precision("auto", student, torch.device("cpu"), job.preprocessing.shape)
    arithmetic = "fp32" if job.student_fp32 else precision
    ask = teacher_of(job)
    settings = job.settings
    optimiser = torch.optim.SGD(
        student.parameters(),
        lr=peak_rate(settings, job.batch_size),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
        fused=True,
    )
    batches = batches_of(job)
    for epoch in range(job.turns):
        turns.next()
        for images, targets, answers in batches(epoch):
            with in_precision(arithmetic):
                logits = student(images)
            loss = F.cross_entropy(logits.float(), targets)
            if answers is None and ask is not None:
                answers = ask(images)
            if answers is not None:
                kd = divergence(logits.float(), answers, job.temperature)
                loss = (1 - job.kd_weight) * loss + job.kd_weight * kd
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(student.parameters(), job.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            turns.step(threads=torch.get_num_threads())
    turns.finish()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    soft, wanted = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(soft, wanted, reduction="batchmean", log_target=True)


def in_precision(precision: str) -> torch.autocast | nullcontext[None]:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


def teacher_of(job: Job) -> Callable[[Tensor], Tensor] | None:
    """The teacher's forward pass in a plain loop; None if its outputs are stored, or there is no teacher."""
    if job.teacher in ("stored", "none"):
        return None
    network = network_of(job, "teacher").requires_grad_(False)
    precision: str = job.teacher
    if precision == "live":
        precision = resolve_precision("auto", network, torch.device("cpu"), inference=True)
    if job.channels_last:
        network.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def ask(images: Tensor) -> Tensor:
        with in_precision(precision):
            logits: Tensor = network(images)
            return logits.float()

    return ask


def batches_of(job: Job) -> Callable[[int], Pairs]:
    """Of an epoch: images in the job's memory format, labels, the teacher's stored answers or None."""
    if job.data == "pillow":
        one_by_one = image_loader(job.path / "data", side=job.side, batch_size=job.batch_size, workers=job.workers)
        return lambda _: ((_laid_out(images, job), targets, None) for images, targets in one_by_one)
    loader = loader_of(job, open_data(job))
    kept = stored(job) if job.teacher == "stored" else None

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        for batch in loader.epoch(epoch):
            yield _laid_out(batch.images, job), batch.targets, kept(batch).logits if kept else None

    if job.data == "batched":
        return batches
    made = list(batches(0))
    return lambda _: made


def _laid_out(images: Tensor, job: Job) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last if job.channels_last else torch.contiguous_format)


def timm_task(job: Job, turns: Turns) -> None:
    """timm's task, as its train.py calls it, in a plain loop over Pillow's images."""
    from timm.task import DistillationTeacher, LogitDistillationTask

    student = network_of(job, "student")
    # As on the networks that timm builds.
    student.pretrained_cfg = {"mean": MEAN, "std": STD}  # type: ignore[assignment]
    task = LogitDistillationTask(
        student,
        DistillationTeacher(network_of(job, "teacher")),
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=job.kd_weight,
        task_loss_weight=1 - job.kd_weight,
        temperature=job.temperature,
    )
    task.train()
    settings = job.settings
    optimiser = torch.optim.SGD(
        student.parameters(),
        peak_rate(settings, job.batch_size),
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    loader = image_loader(job.path / "data", side=job.side, batch_size=job.batch_size, workers=job.workers)
    for _ in range(job.turns):
        turns.next()
        for images, targets in loader:
            task(images, targets)["loss"].backward()
            nn.utils.clip_grad_norm_(task.get_clip_parameters(), job.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            turns.step()
    turns.finish()


def data_alone(job: Job, turns: Turns) -> None:
    loader = loader_of(job, open_data(job))
    for epoch in range(job.turns):
        turns.next()
        for _ in loader.epoch(epoch):
            turns.step()
    turns.finish()


def main() -> None:
    turns = Turns()
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(job.threads)
    kinds = {"fit": fitted, "stream": streamed, "bare": bare, "timm": timm_task, "loader": data_alone}
    kinds[job.kind](job, turns)


if __name__ == "__main__":
    main()
