"""Prunes a trained network's checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edgekd.data.dataset import Dataset
from edgekd.errors import ModelError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning.channels import Channels
from edgekd.pruning.images import losses_of, probes_of
from edgekd.pruning.importance import Scores
from edgekd.pruning.meters import Latency, Meter
from edgekd.pruning.request import Request, share_of
from edgekd.pruning.search import PrunedNetwork, prune_channels, widths
from edgekd.pruning.sensitivity import Curve, scan
from edgekd.pruning.shares import BySensitivity, Global, Shares, Uniform
from edgekd.runtime.preprocess import InputShape
from edgekd.store.artifacts import Json

Shown = Callable[[str], Callable[[int, int], None] | None]


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
        ModelError: the network cannot be pruned, or the target is out of reach.
        UsageError: the rules ask images, and there is no data.
        ExportError, BenchError, BackendError: a latency or size that cannot be measured.
    """
    request = request.decided(labelled=data is not None and data.details.labelled)
    if data is None and request.needs_images:
        raise UsageError(
            "the rules of this pruning ask images, and there are none",
            found=f"importance {request.importance}, shares {request.shares}",
            hint="pass the data set, or take other rules",
        )
    step = step or Step(student)
    channels = Channels.of(checkpoints.load(student), student.details.preprocessing.shape, request.multiple)
    scores = request.scores(losses_of(data) if data is not None else None)(channels.model, channels.flow)
    curves = _curves(channels, scores, data, shown) if request.shares == "sensitivity" and data is not None else ()
    with request.meter() as meter:
        target = share_of(request.target, meter, channels, step.kept, step.left)
        network = prune_channels(
            channels,
            meter=meter,
            target=target,
            shares=_shares(request, channels, scores, curves),
            scores=scores,
            absolute=request.target.absolute is not None,
            shown=shown("trying widths"),
        )
        measured = _measured(meter, channels, network, student, step)
    facts = {**_facts(request, network, step), "target": round(step.kept * target, 6)}
    return _saved(student, network, {**facts, "sensitivity": [asdict(curve) for curve in curves], **measured}, out)


def _facts(request: Request, network: PrunedNetwork, step: Step) -> Json:
    """What the manifest says of a pruned network, against the network before the first step."""
    return {
        "kept": round(step.kept * network.kept, 6),
        "measure": request.target.measure,
        "multiple": request.multiple,
        "importance": request.importance,
        "shares": request.shares,
        "widths": [asdict(width) for width in widths(checkpoints.load(step.origin), network.model)],
        "whole": dict(network.whole),
        "before": {measure: step.origin.metrics[measure] for measure in ("macs", "parameters")},
    }


def _saved(student: Checkpoint, network: PrunedNetwork, metrics: Json, out: Path) -> Checkpoint:
    edit = {"edit": "prune", "shapes": {name: list(size) for name, size in network.shapes.items()}}
    saved = checkpoints.save(
        network.model,
        student.details.architecture.edited(edit),
        preprocessing=student.details.preprocessing,
        classes=student.classes,
        out=out,
        training=student.details.training,
        metrics=metrics,
    )
    _check_rebuilds(saved, network, student.details.preprocessing.shape)
    return saved


def _shares(request: Request, channels: Channels, scores: Scores, curves: tuple[Curve, ...]) -> Shares:
    if request.shares == "global":
        return Global(channels.parts, channels.multiple, scores)
    if request.shares == "sensitivity":
        return BySensitivity(channels.parts, channels.multiple, curves)
    return Uniform(channels.parts, channels.multiple)


def _curves(channels: Channels, scores: Scores, data: Dataset, shown: Shown) -> tuple[Curve, ...]:
    tell = shown("cutting each part alone")
    return scan(channels.model, channels.flow, channels.parts, scores, probes_of(data), shown=tell)


def _measured(meter: Meter, channels: Channels, network: PrunedNetwork, student: Checkpoint, step: Step) -> Json:
    """What was measured of the pruned network, against the first one: nothing where its target is counted."""
    if not isinstance(meter, Latency):
        return {}
    if step.origin.digest == student.digest:
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
