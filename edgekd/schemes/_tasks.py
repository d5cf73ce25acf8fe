"""The data of several tasks: no image of one task's evaluation splits is in another task's training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekd.data import storage
from edgekd.data.dataset import Dataset
from edgekd.data.leaks import shared_rows
from edgekd.data.sources import Labels, source_named
from edgekd.distillation.distill import teacher_warnings
from edgekd.errors import DataError, UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import AugmentSettings, DataSettings, TermSettings
from edgekd.wording import counted


@dataclass(frozen=True)
class Ready:
    """A task with its data and teacher.

    Attributes:
        data: its images and labels.
        teacher: for its head.
        weight: of its losses.
        classes: each of its classes with those of the main task; None if it has its own images.
        augment: of its training images.
    """

    data: Dataset
    teacher: Checkpoint
    weight: float
    classes: Mapping[str, Sequence[str]] | None
    augment: AugmentSettings

    def targets(self, main: Dataset) -> Tensor | None:
        """(C,) int64: the task's class for each class of the main task; None if the task has its own images."""
        if self.classes is None:
            return None
        of = {name: group for group, names in enumerate(self.classes.values()) for name in names}
        return torch.tensor([of[name] for name in main.classes])


def columns_of(tasks: Mapping[str, Ready]) -> dict[str, slice]:
    """The columns of each task's logits in the joint network's output, by name; the tasks in the order of the heads."""
    ends = np.cumsum([0, *(len(ready.data.classes) for ready in tasks.values())]).tolist()
    return {name: slice(first, stop) for name, first, stop in zip(tasks, ends, ends[1:], strict=False)}


def warnings_of(tasks: Mapping[str, Ready], objective: Sequence[TermSettings]) -> list[str]:
    """Warnings about the teachers, and about images that are in two tasks; each once."""
    found = [
        f"Task {name}: {warning}"
        for name, ready in tasks.items()
        for warning in teacher_warnings(ready.teacher, objective)
    ]
    own = [each for ready in tasks.values() if ready.classes is None for each in ready.data.metrics.get("warnings", [])]
    return list(dict.fromkeys([*found, *own]))


def check_data(where: str, own: DataSettings, main: DataSettings) -> None:
    """Check a task's own images.

    Args:
        where: the key that holds `own`, for the message.
        own: the task's data section.
        main: the recipe's.

    Raises:
        UsageError: they have no labels, are prepared differently from the main task's, or are the same images in
            another split.
    """
    if not source_named(own.source).labelled:
        raise UsageError(f"{where}: a task learns from labels, and the source {own.source} has none")
    if own.preprocessing != main.preprocessing:
        raise UsageError(
            f"{where}: all tasks' images go into one network, and must be prepared alike",
            found=own.preprocessing,
            allowed=main.preprocessing,
        )
    drawn = [{key: getattr(each, key) for key in ("validation", "test", "seed")} for each in (own, main)]
    origins = [(each.source, each.root.resolve() if each.root is not None else None) for each in (own, main)]
    if origins[0] == origins[1] and drawn[0] != drawn[1]:
        raise UsageError(
            f"{where}: the same images in another split: one task would train on evaluation images of another",
            found=drawn[0],
            allowed=f"{drawn[1]}, as the recipe's data",
        )


def without_shared_images(task: str, data: Dataset, main: str, others: Mapping[str, Dataset], out: Path) -> Dataset:
    """A task's data without the training images that are in another task's validation or test split.

    Images are equal where their scaled pixels are. Unchanged files are linked, if the disk supports it.
    The main task's training images stay, even those in this task's evaluation splits: `warnings` reports them.

    Args:
        task: its name, for warnings and messages.
        data: the task's.
        main: the name of the main task.
        others: the other tasks' data by name, including the main task's; prepared alike.
        out: an empty folder, which becomes the data set; its metrics have `warnings`.

    Raises:
        DataError: a class is left without a training image.
    """
    shared = {name: shared_rows(data, "train", [other]) for name, other in others.items()}
    warnings = [
        f"{task}: {counted(len(rows), 'training image')} {'was' if len(rows) == 1 else 'were'} left out: also in "
        f"{name}'s validation or test split."
        for name, rows in shared.items()
        if len(rows)
    ]
    if known := len(shared_rows(others[main], "train", [data])):
        warnings.append(
            f"{task}: {known} of {main}'s training images {'is' if known == 1 else 'are'} in its validation or test "
            "split."
        )
    labels: Labels = np.load(storage.labels_file(data.path, "train"))
    kept = np.setdiff1d(np.arange(len(labels)), np.concatenate(list(shared.values())))
    counts = dict(zip(data.classes, np.bincount(labels[kept], minlength=len(data.classes)).tolist(), strict=True))
    if empty := [name for name, count in counts.items() if count == 0]:
        raise DataError(
            f"the task {task} has no training image of {empty[0]} left: all are in evaluation splits of other tasks",
            found="; ".join(warnings),
            hint="give the tasks different images, or the same validation and test split",
        )
    _write(data, kept, labels, out)
    per_class = {**data.metrics["classes"], "train": counts}
    return Dataset.seal(
        out,
        details=data.details.with_train(len(kept)),
        metrics={**data.metrics, "classes": per_class, "warnings": warnings},
    )


def _write(data: Dataset, kept: Labels, labels: Labels, out: Path) -> None:
    """All files; those of the training split with the kept rows only, where some are left out."""
    train = {file_of(out, "train") for file_of in (storage.labels_file, storage.pixels_file, storage.samples_file)}
    changed = train if len(kept) < len(labels) else set()
    for file in data.manifest.files:
        if out / file not in changed:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            storage.link_or_copy(data.path / file, out / file)
    if not changed:
        return
    if data.details.storage == "cached":
        pixels = np.load(storage.pixels_file(data.path, "train"), mmap_mode="r")
        storage.write_cached(out, "train", pixels, kept, labels[kept])
    else:
        split, samples = storage.read_streamed(data.path, "train")
        storage.write_streamed(out, "train", split, samples[kept], labels[kept])
