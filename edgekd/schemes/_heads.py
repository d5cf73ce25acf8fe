"""Several heads on one trunk, trained together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch, BatchSource
from edgekd.distillation.distill import check_classes, networks_for
from edgekd.distillation.objective import Teacher
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import Seen, Terms, build_terms
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import ModelSettings, TeacherGuidedSettings, TermSettings
from edgekd.schemes._tasks import Ready, columns_of, warnings_of
from edgekd.training.fit import BeginEpoch, Progress, accuracy
from edgekd.training.host import best_device
from edgekd.training.train import Learner, Record, TrainingSetup, evaluation_loader, train_with, training_loader


@dataclass(frozen=True)
class Batches(Batch):
    """The main task's batch, and by name those of tasks with their own images."""

    others: Mapping[str, Batch] | None = None


class JointBatches:
    """One batch of each loader per step, for as many steps as the main one has.

    Every epoch restarts and shuffles all of them; a shorter one is repeated, a longer one is truncated.
    """

    def __init__(self, main: BatchSource, others: Mapping[str, BatchSource]) -> None:
        self.shape, self.batch_size = main.shape, main.batch_size
        self._main, self._others = main, others

    def __len__(self) -> int:
        return len(self._main)

    def epoch(self, number: int) -> Iterator[Batches]:
        """The joint batches of epoch `number`, from 0."""
        others = {name: self._again(loader, number) for name, loader in self._others.items()}
        for batch in self._main.epoch(number):
            yield Batches(**vars(batch), others={name: next(batches) for name, batches in others.items()})

    def _again(self, loader: BatchSource, number: int) -> Iterator[Batch]:
        rounds = -(-len(self) // len(loader))
        for again in range(rounds):
            yield from loader.epoch(number * rounds + again)


class Head(nn.Module):
    """The losses of one task: its part of the logits, compared with its teacher's and its labels.

    Args:
        teacher: the task's.
        terms: losses on logits.
        columns: its part of the joint network's logits.
        weight: of all its losses.
        groups: (C,) from the main task's labels to this one's; None: the labels are its own.
    """

    groups: Tensor | None

    def __init__(self, teacher: Teacher, terms: Terms, columns: slice, weight: float, groups: Tensor | None) -> None:
        super().__init__()
        self.terms = terms
        self._teacher, self._columns, self._weight = teacher, columns, weight
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The task's weighted losses.

        Args:
            logits: (B, ΣC), the joint network's for this task's images.
            batch: these images, with the task's labels or the main task's.

        Returns:
            Scalars by the names of the terms.
        """
        seen = Seen(
            student_logits=logits[:, self._columns],
            teacher_logits=self._teacher(batch).logits if self.terms.needs_teacher else None,
            targets=batch.targets if self.groups is None else self.groups[batch.targets],
            indices=batch.indices,
            epoch=batch.epoch,
        )
        return {name: self._weight * loss for name, loss in self.terms(seen).items()}


class MultiTask(nn.Module):
    """What fit() minimises: the sum over the tasks of their weighted losses.

    Args:
        heads: by task; batches of those with their own images are in `batch.others` under their name.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.names = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(self, model: nn.Module, batch: Batches) -> dict[str, Tensor]:
        """The weighted losses, scalars by task and term."""
        # One pass over all images, so that batch norms normalise by the statistics that they keep.
        others = dict(batch.others or {})
        parts = [batch.images, *(other.images for other in others.values())]
        logits = dict(zip(("", *others), model(torch.cat(parts)).split([len(part) for part in parts]), strict=True))
        losses: dict[str, Tensor] = {}
        for name, head in zip(self.names, self.heads, strict=True):
            found = head(logits[name if name in others else ""], others.get(name, batch))
            losses |= {f"{name} {term}": loss for term, loss in found.items()}
        return losses


class Columns(nn.Module):
    """One task of a joint network: (B, C, H, W) images to the logits in its columns."""

    def __init__(self, network: nn.Module, columns: slice) -> None:
        super().__init__()
        self._network, self._columns = network, columns

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self._network(images)[:, self._columns]
        return logits


@dataclass(frozen=True)
class DistillationArguments:
    """How all heads are trained: the first time, after pruning, or through quantizers; see fit() for `begin_epoch`."""

    settings: TeacherGuidedSettings
    objective: Sequence[TermSettings]
    begin_epoch: BeginEpoch | None = None


def train_heads(
    student: ModelSettings | Checkpoint,
    tasks: Mapping[str, Ready],
    arguments: DistillationArguments,
    out: Path,
    *,
    progress: Progress | None,
) -> Checkpoint:
    """Train the network of all tasks.

    Args:
        student: a new network, or a checkpoint to train further.
        tasks: by name, the main one first.
        arguments: settings and objective.
        out: an empty folder, which becomes the checkpoint.

    Raises:
        ModelError: a teacher has other classes than its task's data; see also train_with().
    """
    settings = arguments.settings
    main, *further = tasks
    data, columns = tasks[main].data, columns_of(tasks)
    for ready in tasks.values():
        check_classes(ready.teacher, ready.data)
    teachers = {
        name: Teacher.of(ready.teacher, best_device(), settings.teacher_precision, use_compile=settings.compile)
        for name, ready in tasks.items()
    }

    def objective_of(network: nn.Module) -> MultiTask:
        heads = {}
        for name, ready in tasks.items():
            terms = build_terms(arguments.objective, networks_for(network, None, ready.data))
            heads[name] = Head(teachers[name], terms, columns[name], ready.weight, ready.targets(data))
        return MultiTask(heads)

    return train_with(
        objective_of,
        Learner(student, heads={name: tasks[name].data.classes for name in further}),
        data,
        TrainingSetup(settings, tasks[main].augment, progress, arguments.begin_epoch),
        out,
        loader=_joint_loader(tasks, settings),
        record=Record(
            training={"teacher": tasks[main].teacher.digest, "objective": objective_json(arguments.objective)},
            warnings=warnings_of(tasks, arguments.objective) if isinstance(student, ModelSettings) else (),
            of_objective=lambda _: {"teacher_precision": {name: each.precision for name, each in teachers.items()}},
            of_network=lambda network: {"tasks": {name: _head_accuracy(network, name, tasks) for name in further}},
        ),
    )


def _joint_loader(tasks: Mapping[str, Ready], settings: TeacherGuidedSettings) -> JointBatches:
    """The training batches of the first task, and of those with their own images."""
    main, *_ = tasks
    loaders = {
        name: training_loader(ready.data, settings, ready.augment)
        for name, ready in tasks.items()
        if name == main or ready.classes is None
    }
    return JointBatches(loaders.pop(main), loaders)


def _head_accuracy(network: nn.Module, name: str, tasks: Mapping[str, Ready]) -> float:
    """The accuracy of one head on its task's validation split."""
    head = Columns(network, columns_of(tasks)[name])
    return accuracy(head, evaluation_loader(tasks[name].data, "validation"), best_device())
