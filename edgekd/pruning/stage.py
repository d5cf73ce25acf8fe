"""The pruning stage; recovery is the distillation stage, begun from what this one leaves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.pruning.narrow import Narrowed, check_reachable, narrow
from edgekd.recipe.settings import PruneTarget
from edgekd.store.artifacts import Checkpoint

VERSION = 1


def prune(student: Checkpoint, target: PruneTarget, multiple: int, out: Path) -> Checkpoint:
    """Narrow a trained network to a target. Nothing is trained here: the accuracy falls until it is recovered.

    Args:
        multiple: widths that change become multiples of this.
        out: an empty folder, which becomes the checkpoint; its manifest replays the pruning.

    Raises:
        ModelError: the network cannot be pruned or the target is out of reach.
    """
    architecture = checkpoints.architecture_of(student)
    preprocessing = checkpoints.preprocessing_of(student)
    size = preprocessing.image_size
    narrowed = narrow(
        checkpoints.load(student), measure=target.measure, target=target.share, multiple=multiple, image_size=size
    )
    saved = checkpoints.save(
        narrowed.model,
        architecture.edited({"edit": "prune", "history": narrowed.history, "image_size": size}),
        preprocessing=preprocessing,
        classes=student.classes,
        out=out,
        training=student.manifest.details["training"],
        metrics={
            "kept": round(narrowed.kept, 6),
            "measure": target.measure,
            "target": target.share,
            "multiple": multiple,
            "widths": [asdict(width) for width in narrowed.widths],
            "before": {measure: student.metrics[measure] for measure in ("macs", "parameters")},
        },
    )
    _check_rebuilds(saved, narrowed, size)
    return saved


def check(network: nn.Module, target: PruneTarget, multiple: int, image_size: int) -> None:
    """Raises ModelError where prune() would, before anything is trained: what can be cut does not depend on weights."""
    check_reachable(network, measure=target.measure, target=target.share, multiple=multiple, image_size=image_size)


def _check_rebuilds(saved: Checkpoint, narrowed: Narrowed, image_size: int) -> None:
    """A network whose history does not replay would be lost with this process."""
    example = torch.linspace(-1.0, 1.0, 3 * image_size**2).reshape(1, 3, image_size, image_size)
    with torch.no_grad():
        same = torch.equal(checkpoints.load(saved)(example), narrowed.model(example))
    if not same:
        raise ModelError("the pruned network does not rebuild from its history", hint="leave the prune section out")
