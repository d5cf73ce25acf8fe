"""The data of one of several tasks: no image that measures one of them trains another."""

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
from edgekd.data.sources import Labels
from edgekd.distillation.distill import teacher_warnings
from edgekd.errors import DataError, UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import AugmentSettings, DataSettings, TermSettings
from edgekd.store.artifacts import read_json


@dataclass(frozen=True)
class Ready:
    """A task whose data and teacher are made; `classes` where its labels are groups of the main one's."""

    data: Dataset
    teacher: Checkpoint
    weight: float
    classes: Mapping[str, Sequence[str]] | None
    augment: AugmentSettings

    def targets(self, main: Dataset) -> Tensor | None:
        """(C,) int64: for each of the main task's classes the task's own; None where the labels are its own."""
        if self.classes is None:
            return None
        of = {name: group for group, names in enumerate(self.classes.values()) for name in names}
        return torch.tensor([of[name] for name in main.classes])


def columns_of(tasks: Mapping[str, Ready]) -> dict[str, slice]:
    """Where each task's logits stand in the joint network's."""
    ends = np.cumsum([0, *(len(ready.data.classes) for ready in tasks.values())]).tolist()
    return {name: slice(first, stop) for name, first, stop in zip(tasks, ends, ends[1:], strict=False)}


def warnings_of(tasks: Mapping[str, Ready], objective: Sequence[TermSettings]) -> list[str]:
    """Warnings of the teachers, and of images that stand in two tasks; each once."""
    found = [warning for ready in tasks.values() for warning in teacher_warnings(ready.teacher, objective)]
    own = [each for ready in tasks.values() if ready.classes is None for each in ready.data.metrics.get("warnings", [])]
    return list(dict.fromkeys([*found, *own]))


def check_data(where: str, own: DataSettings, main: DataSettings) -> None:
    """Check a task's own images.

    Args:
        where: the key that holds `own`, for the message.

    Raises:
        UsageError: they are prepared differently from the main task's, or are the same images in another split.
    """
    if own.preprocessing != main.preprocessing:
        raise UsageError(
            f"{where}: all tasks' images go into one network, and must be prepared alike",
            found=own.preprocessing,
            allowed=main.preprocessing,
        )
    drawn = [{key: getattr(each, key) for key in ("validation", "test", "seed")} for each in (own, main)]
    places = [(each.source, each.root.resolve() if each.root is not None else None) for each in (own, main)]
    if places[0] == places[1] and drawn[0] != drawn[1]:
        raise UsageError(
            f"{where}: the same images, in another split: some that test one task would train another",
            found=drawn[0],
            allowed=f"{drawn[1]}, as the recipe's data",
        )


def apart(task: str, data: Dataset, main: str, others: Mapping[str, Dataset], out: Path) -> Dataset:
    """A task's data without the training images that stand in another task's validation or test split.

    Images are equal where their scaled pixels are. Files that stay as they are are linked, where the disk can do
    that. The main task's training images stay, even where they measure this task: `warnings` reports it.

    Args:
        others: the other tasks' data by name, the one called `main` among them; prepared alike.
        task: its name, for warnings and messages.
        main: the name of the main task.
        out: an empty folder, which becomes the data set; its metrics have `warnings`.

    Raises:
        DataError: a class is left without a training image.
    """
    shared = {name: shared_rows(data, "train", [other]) for name, other in others.items()}
    warnings = [
        f"{task}: {len(rows)} training images were left out, as they stand in {name}'s validation or test split."
        for name, rows in shared.items()
        if len(rows)
    ]
    if known := len(shared_rows(others[main], "train", [data])):
        warnings.append(f"{task}: {known} of {main}'s training images stand in its validation or test split.")
    labels: Labels = np.load(storage.labels_file(data.path, "train"))
    kept = np.setdiff1d(np.arange(len(labels)), np.concatenate(list(shared.values())))
    counts = dict(zip(data.classes, np.bincount(labels[kept], minlength=len(data.classes)).tolist(), strict=True))
    if empty := [name for name, count in counts.items() if count == 0]:
        raise DataError(
            f"the task {task} has no training image of {empty[0]} left: all of them measure another task",
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
    train = {place(out, "train") for place in (storage.labels_file, storage.pixels_file, storage.samples_file)}
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
        stored = read_json(storage.samples_file(data.path, "train"))
        samples = np.asarray(stored["samples"], dtype=np.int64)
        storage.write_streamed(out, "train", stored["split"], samples[kept], labels[kept])
