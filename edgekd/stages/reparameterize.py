"""Branches that only training needs are folded into single convolutions, before the network is pruned and exported.

Training keeps them: the network that is distilled, and a teacher that is learned from, are the ones with branches. What
is exported for comparison is folded too, since otherwise its latency would be that of the branches.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.errors import ModelError
from edgekd.export.numerics import real_inputs
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.reparameterize import edit_of
from edgekd.models.reparameterization import Folded, fold, has_branches
from edgekd.recipe.settings import ModelSettings
from edgekd.runs import Run, Stage
from edgekd.stages.distill import Distilled
from edgekd.stages.train import BASELINE, TEACHER
from edgekd.store.artifacts import Json
from edgekd.store.plan import is_described, is_pending
from edgekd.training import train as training

# Of the validation split, for which the logits are compared.
_IMAGES = 8


def _facts(checkpoint: Checkpoint) -> list[str]:
    metrics = checkpoint.metrics
    found = metrics["folded"]
    if found is None:
        return ["kept: see the warning"]
    convolutions, norms = (f"{before:,} → {after:,}" for before, after in (found["convolutions"], found["norms"]))
    return [
        f"{convolutions} convolutions, {norms} norms",
        f"the same logits in float64 up to {found['difference']:.0e}",
        f"{metrics['parameters']:,} parameters",
    ]


STAGE = Stage("reparameterize", "Branches folded", version=1, facts=_facts)


def reparameterize(run: Run, student: Distilled, data: Dataset) -> Distilled:
    """The result of a scheme with its branches folded; as it was where it has none, or where the logits would differ.

    Args:
        student: the student, and the further networks of the scheme.
        data: the logits are compared on its validation images.
    """
    folded = _folded(run, STAGE.name, student.student, run.recipe.student, data)
    others = {
        name: _folded(run, f"{STAGE.name}-{name}", network, run.recipe.student, data)
        for name, network in student.others.items()
    }
    return run.finish(STAGE, replace(student, student=folded, others=others), folded)


def reparameterize_compared(
    run: Run, teacher: Checkpoint | None, baseline: Checkpoint | None, data: Dataset
) -> tuple[Checkpoint | None, Checkpoint | None]:
    """The teacher and the baseline, of which nothing is learned any more, with their branches folded.

    Args:
        teacher, baseline: None where the recipe has none.
        data: as for reparameterize().
    """
    folded_teacher, folded_baseline = teacher, baseline
    if teacher is not None and run.recipe.teacher is not None:
        folded_teacher = _folded(run, f"{STAGE.name}-{TEACHER.name}", teacher, run.recipe.teacher, data)
    if baseline is not None:
        folded_baseline = _folded(run, f"{STAGE.name}-{BASELINE.name}", baseline, run.recipe.student, data)
    return folded_teacher, folded_baseline


def as_compressed(student: nn.Module) -> nn.Module:
    """An untrained student in the form in which it is pruned and quantized, for the checks before any training."""
    try:
        folded = fold(student)
    except ModelError:  # then it keeps its branches, with a warning
        return student
    return folded.model if folded.modules else student


def _folded(run: Run, name: str, network: Checkpoint, model: ModelSettings, data: Dataset) -> Checkpoint:
    if not _has_branches(network, model, data):
        return network
    title = None if name == STAGE.name else f"{STAGE.title}: {name.removeprefix(f'{STAGE.name}-')}"
    return run.stage(
        STAGE,
        Checkpoint,
        name=name,
        title=title,
        settings={},
        inputs={"network": network, "data": data},
        make=lambda out: fold_checkpoint(network, torch.from_numpy(real_inputs(data, _IMAGES)), out),
    )


def _has_branches(network: Checkpoint, model: ModelSettings, data: Dataset) -> bool:
    if not is_pending(network):
        return bool(network.metrics.get("branches"))
    # In a plan: by the network without its weights.
    bare = model.model_copy(update={"checkpoint": None, "pretrained": False})
    return is_described(data) and has_branches(training.begin(bare, data).network)


def fold_checkpoint(network: Checkpoint, images: torch.Tensor, out: Path) -> Checkpoint:
    """Fold the branches of a trained network; where the logits would differ it keeps them, with a warning.

    Args:
        network: with branches.
        images: (B, C, H, W), for which the logits are compared.
        out: an empty folder, which becomes the checkpoint; its manifest replays the folding.
    """
    architecture, before = network.details.architecture, checkpoints.load(network)
    try:
        folded = fold(before, images)
    except ModelError as error:
        warning = f"The branches of {architecture.model} were kept: {'; '.join(str(error).split(chr(10) + '  '))}."
        return _saved(network, before, None, {"folded": None, "warnings": [*_warnings(network), warning]}, out)
    found = {
        "convolutions": list(folded.convolutions),
        "norms": list(folded.norms),
        "difference": folded.difference,
        "images": len(images),
    }
    return _saved(network, folded.model, folded, {"folded": found}, out)


def _saved(network: Checkpoint, model: nn.Module, folded: Folded | None, metrics: Json, out: Path) -> Checkpoint:
    details, architecture = network.details, network.details.architecture
    known = {key: value for key, value in network.metrics.items() if key != "branches"}
    return checkpoints.save(
        model,
        architecture if folded is None else architecture.edited(edit_of(folded)),
        preprocessing=details.preprocessing,
        classes=network.classes,
        out=out,
        training=details.training,
        metrics={**known, **metrics},
    )


def _warnings(network: Checkpoint) -> list[str]:
    return list(network.metrics.get("warnings", ()))
