"""For images without labels: the float student's answers, which compressed students are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgekd.data import storage
from edgekd.data.composed import link_split
from edgekd.data.dataset import Dataset
from edgekd.data.sources import source_named
from edgekd.recipe.settings import ModelSettings
from edgekd.runs import Run, Stage
from edgekd.runtime.preprocess import Floats
from edgekd.runtime.statistics import Outputs
from edgekd.training import train as training
from edgekd.training.host import best_device
from edgekd.training.train import evaluation_loader
from edgekd.wording import counted


def _facts(data: Dataset) -> list[str]:
    counts = data.details.counts
    return [f"{counts['validation']:,} validation and {counted(counts['test'], 'test image')}", "no labels given"]


STAGE = Stage("answers", "Answers in float", version=1, facts=_facts)


def answers(run: Run, data: Dataset) -> Dataset:
    """The data with the untouched student's answers as labels of validation and test, where its source has no labels.

    Raises:
        ModelError: the student cannot be built, or its weights do not fit.
    """
    if source_named(run.recipe.data.source).labelled:
        return run.finish(STAGE, data)
    student = run.recipe.student
    made = run.stage(
        STAGE,
        Dataset,
        settings={"model": training.origin_of(student)},
        inputs={"data": data},
        make=lambda out: answered(student, data, out),
    )
    return run.finish(STAGE, made)


def answered(model: ModelSettings, data: Dataset, out: Path) -> Dataset:
    """A data set whose validation and test labels are a trained network's answers, computed in fp32.

    Args:
        model: with its weights.
        data: without labels; its images are linked, if the disk supports it.
        out: an empty folder, which becomes the data set; see float_logits().
    """
    link_split(data.path, out, "train")
    warnings = list(data.metrics["warnings"])
    for split in ("validation", "test"):
        logits = _logits(model, data, split)
        labels = logits.argmax(1).astype(np.int64)
        link_split(data.path, out, split)
        storage.labels_file(out, split).unlink()  # a link: its content is that of `data`
        np.save(storage.labels_file(out, split), labels)
        seen = Outputs(data.classes)
        seen.add(logits, labels)
        warnings += [f"The student in float, on the {split} images: {found}." for found in _doubts(seen, data)]
    np.save(_logits_file(out), logits)
    details = data.details.model_copy(update={"answered": True})
    return Dataset.seal(out, details=details, metrics={**data.metrics, "warnings": warnings})


def float_logits(data: Dataset) -> Floats:
    """(N, C): the logits behind the labels of the test split, in its order."""
    logits: Floats = np.load(_logits_file(data.path), mmap_mode="r")
    return logits


def _logits_file(folder: Path) -> Path:
    return folder / "test-logits.npy"


@torch.no_grad()
def _logits(model: ModelSettings, data: Dataset, split: str) -> Floats:
    device = best_device()
    network = training.begin(model, data, adopted=True).network.to(device).eval()
    batches = [network(batch.images).float().cpu().numpy() for batch in evaluation_loader(data, split).epoch(0)]
    return np.concatenate(batches)


def _doubts(seen: Outputs, data: Dataset) -> list[str]:
    answers = np.flatnonzero(seen.confusion.sum(0))
    alone = [f"one class, {data.classes[int(answers[0])]}, for every image"] if len(answers) == 1 else []
    return seen.problems(of_network=True) or alone
