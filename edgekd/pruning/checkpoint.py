"""Prunes a trained network's checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning.channels import Channels
from edgekd.pruning.importance import Scores
from edgekd.pruning.meters import Latency, Meter
from edgekd.pruning.request import Request, share_of
from edgekd.pruning.search import PrunedNetwork, prune_channels, widths
from edgekd.pruning.sensitivity import Curve, Probes, scan
from edgekd.pruning.shares import BySensitivity, Global, Shares, Uniform
from edgekd.runtime.preprocess import InputShape
from edgekd.store.artifacts import Json

Shown = Callable[[str], Callable[[int, int], None] | None]

# Validation images that a sensitivity scan asks about, and training images that gradients are averaged over.
_PROBES, _GRADIENTS, _BATCH = 128, 512, 32


@dataclass(frozen=True)
class Step:
    """One of several equal steps towards a target.

    Attributes:
        origin: the network before the first step.
        kept: the fraction that is left of it.
        left: how many steps there are still, with this one.
    """

    origin: Checkpoint
    kept: float = 1.0
    left: int = 1

    @property
    def first(self) -> bool:
        """Whether nothing was removed before."""
        return self.kept == 1.0


def prune_checkpoint(
    student: Checkpoint,
    request: Request,
    out: Path,
    *,
    data: Dataset | None = None,
    step: Step | None = None,
    shown: Shown = lambda _: None,
) -> Checkpoint:
    """Prune a trained network to a target. It is not trained further here, so its accuracy is lower until recovery.

    Args:
        student: the network.
        request: the target and the rules.
        out: an empty folder, which becomes the checkpoint; its manifest replays the pruning.
        data: the images that a sensitivity scan (validation) and gradients (training) need.
        step: where this is one of several; default: the only one.
        shown: from what is done to a callback (done, total).

    Raises:
        ModelError: the network cannot be pruned, the target is out of reach, or the rules need images that are missing.
        ExportError, BenchError, BackendError: a latency or size that cannot be measured.
    """
    step = step or Step(student)
    shape = student.details.preprocessing.shape
    channels = Channels.of(checkpoints.load(student), shape, request.multiple)
    losses = _losses(data)
    scores = request.scores(losses)(channels.model, channels.flow)
    curves = _curves(channels, scores, data, shown) if request.shares == "sensitivity" else ()
    with request.meter() as meter:
        target = share_of(request.target, meter, channels, step.kept, step.left)
        network = prune_channels(
            channels,
            meter=meter,
            target=target,
            shares=_shares(request, channels, scores, curves),
            scores=scores,
            shown=shown("trying widths"),
        )
        measured = _measured(meter, channels, network, step)
    edit = {"edit": "prune", "shapes": {name: list(size) for name, size in network.shapes.items()}}
    saved = checkpoints.save(
        network.model,
        student.details.architecture.edited(edit),
        preprocessing=student.details.preprocessing,
        classes=student.classes,
        out=out,
        training=student.details.training,
        metrics={
            "kept": round(step.kept * network.kept, 6),
            "measure": request.target.measure,
            "target": round(step.kept * target, 6),
            "multiple": request.multiple,
            "importance": request.importance,
            "shares": request.shares,
            "widths": [asdict(width) for width in widths(checkpoints.load(step.origin), network.model)],
            "whole": dict(network.whole),
            "sensitivity": [asdict(curve) for curve in curves],
            "before": {measure: step.origin.metrics[measure] for measure in ("macs", "parameters")},
            **measured,
        },
    )
    _check_rebuilds(saved, network, shape)
    return saved


def _shares(request: Request, channels: Channels, scores: Scores, curves: tuple[Curve, ...]) -> Shares:
    if request.shares == "global":
        return Global(channels.parts, channels.multiple, scores)
    if request.shares == "sensitivity":
        return BySensitivity(channels.parts, channels.multiple, curves)
    return Uniform(channels.parts, channels.multiple)


def _curves(channels: Channels, scores: Scores, data: Dataset | None, shown: Shown) -> tuple[Curve, ...]:
    assert data is not None
    reader = open_reader(data, "validation")
    batches = list(reader.batches(_spread(len(reader), _PROBES), size=_BATCH))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in batches]))
    classes = len(data.classes)

    def correct(logits: Tensor) -> Tensor:
        if data.multilabel:
            return (logits[:, :classes] > 0) == (labels > 0)
        return logits[:, :classes].argmax(1) == labels

    probes = Probes([torch.from_numpy(images) for images, _ in batches], correct)
    return scan(channels.model, channels.flow, channels.parts, scores, probes, shown=shown("cutting each part alone"))


def _losses(data: Dataset | None) -> Callable[[nn.Module], Iterator[Tensor]]:
    """From a network to its loss on batches of training images: cross entropy with the labels."""

    def losses(model: nn.Module) -> Iterator[Tensor]:
        assert data is not None
        reader = open_reader(data, "train")
        for images, labels in reader.batches(_spread(len(reader), _GRADIENTS), size=_BATCH):
            logits = model(torch.from_numpy(images))[:, : len(data.classes)]
            targets = torch.from_numpy(labels)
            if data.multilabel:
                yield functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
            else:
                yield functional.cross_entropy(logits, targets)

    return losses


def _spread(available: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.linspace(0, available - 1, min(count, available)).astype(np.int64)


def _measured(meter: Meter, channels: Channels, network: PrunedNetwork, step: Step) -> Json:
    """What was measured of the pruned network, against the first one: nothing where its target is counted."""
    if not isinstance(meter, Latency):
        return {}
    if step.first:
        comparison = meter.comparison(channels, network.shapes)
    else:
        comparison = meter.directly(checkpoints.load(step.origin).eval(), network.model, channels.shape)
    kept = round(comparison.ratios[1], 6)
    return {"kept": kept, "latency": {**comparison.model_dump(mode="json"), "device": meter.device}}


def _check_rebuilds(saved: Checkpoint, network: PrunedNetwork, shape: InputShape) -> None:
    """Raises ModelError where the checkpoint's shapes do not rebuild the same network."""
    example = torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(1, *shape)
    with torch.no_grad():
        same = torch.equal(checkpoints.load(saved)(example), network.model(example))
    if not same:
        raise ModelError("the pruned network does not rebuild from its shapes", hint="leave the prune section out")
