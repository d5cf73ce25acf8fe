"""Structured pruning to a target, then recovery: further training of the pruned network by distillation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edgekd.devices import profiles
from edgekd.distillation.distill import networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning.channels import PrunedNetwork, check_reachable, prune_channels
from edgekd.recipe.settings import PruneSettings, PruneTarget
from edgekd.runs import Role, Run, Stage, Untrained, part_of, settings_json
from edgekd.runtime.preprocess import InputShape
from edgekd.stages import _facts
from edgekd.stages.distill import Continuation, Guidance, distilled
from edgekd.training.fit import Progress


@dataclass(frozen=True)
class Pruned:
    """The pruned network, before and after its recovery."""

    pruned: Checkpoint
    recovered: Checkpoint


def _check(untrained: Untrained) -> None:
    """Raises ModelError or UsageError where the student cannot be pruned or recovered as the recipe asks."""
    settings, student = untrained.recipe.prune, untrained.student
    assert settings is not None
    if settings.objective is not None:
        build_terms(settings.objective, networks_for(student, untrained.teacher or student, untrained.data))
    # Which channels can be removed does not depend on the weights.
    check_reachable(
        student,
        measure=settings.target.measure,
        target=settings.target.share,
        multiple=channel_multiple(settings),
        shape=untrained.shape,
    )


def _pruned_facts(checkpoint: Checkpoint) -> list[str]:
    metrics = checkpoint.metrics
    name = {"macs": "MACs", "parameters": "parameters"}[metrics["measure"]]
    return [f"{metrics['kept']:.1%} of the {name} left", f"{metrics['parameters']:,} parameters"]


STAGE = Stage(
    "prune", "Pruned", version=2, section="prune", example="{target: {macs: 0.5}}", facts=_pruned_facts, check=_check
)
RECOVER = Stage("recover", "Recovered", version=1, section="prune", facts=_facts.network_facts)

RECOVERED = Role("pruned", "Pruned and recovered", "pruned and recovered", shape="triangle-up", colour="blue")


def prune(run: Run, student: Checkpoint, continuation: Continuation) -> Pruned | None:
    """Prune and recover the student; None where the recipe has no prune section.

    Args:
        student: the distilled student.
        continuation: how it is recovered.

    Raises:
        ModelError: the network cannot be pruned or the target is out of reach.
        TrainingError: see edgekd.training.fit.
    """
    settings = run.recipe.prune
    if settings is None:
        return run.finish(STAGE, None)
    before = pruned(run, student, settings)
    result = Pruned(before, recovered(run, before, settings, continuation))
    return run.finish(STAGE, result, result.recovered)


def pruned(run: Run, student: Checkpoint, settings: PruneSettings) -> Checkpoint:
    """The pruned network, not yet recovered. Raises as prune_checkpoint()."""
    target, multiple = settings.target, channel_multiple(settings)
    return run.stage(
        STAGE,
        Checkpoint,
        settings={"target": settings_json(target), "multiple": multiple},
        inputs={"student": student},
        make=lambda out: prune_checkpoint(student, target, multiple, out, progress=run.progress(STAGE.name)),
    )


def recovered(run: Run, network: Checkpoint, settings: PruneSettings, continuation: Continuation) -> Checkpoint:
    """The pruned network trained further, on the prune section's objective where it has one. Raises as distilled()."""
    if continuation.train is not None:
        return continuation.train(RECOVER, network, settings)
    objective = settings.objective or continuation.objective
    return distilled(
        run, network, Guidance(continuation.teacher, continuation.data, objective), settings, stage=RECOVER
    )


def channel_multiple(settings: PruneSettings) -> int:
    """The number whose multiples widths are rounded to. Raises UnknownNameError: no such device."""
    return settings.multiple or profiles.find(settings.device).channel_multiple


def prune_checkpoint(
    student: Checkpoint, target: PruneTarget, multiple: int, out: Path, *, progress: Progress | None = None
) -> Checkpoint:
    """Prune a trained network to a target. It is not trained further here, so its accuracy is lower until recovery.

    Args:
        student: the network.
        target: the fraction to keep, of MACs or parameters.
        multiple: changed widths become multiples of this.
        out: an empty folder, which becomes the checkpoint; its manifest replays the pruning.
        progress: called with (widths tried, widths in total, what is tried).

    Raises:
        ModelError: the network cannot be pruned or the target is out of reach.
    """
    architecture = student.details.architecture
    preprocessing = student.details.preprocessing
    shape = preprocessing.shape
    network = prune_channels(
        checkpoints.load(student),
        measure=target.measure,
        target=target.share,
        multiple=multiple,
        shape=shape,
        shown=part_of(progress, 0, 1, "trying widths"),
    )
    saved = checkpoints.save(
        network.model,
        architecture.edited({"edit": "prune", "shapes": {name: list(size) for name, size in network.shapes.items()}}),
        preprocessing=preprocessing,
        classes=student.classes,
        out=out,
        training=student.details.training,
        metrics={
            "kept": round(network.kept, 6),
            "measure": target.measure,
            "target": target.share,
            "multiple": multiple,
            "widths": [asdict(width) for width in network.widths],
            "before": {measure: student.metrics[measure] for measure in ("macs", "parameters")},
        },
    )
    _check_rebuilds(saved, network, shape)
    return saved


def _check_rebuilds(saved: Checkpoint, network: PrunedNetwork, shape: InputShape) -> None:
    """Raises ModelError where the checkpoint's shapes do not rebuild the same network."""
    example = torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(1, *shape)
    with torch.no_grad():
        same = torch.equal(checkpoints.load(saved)(example), network.model(example))
    if not same:
        raise ModelError("the pruned network does not rebuild from its shapes", hint="leave the prune section out")
