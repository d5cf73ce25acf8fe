"""Pruning to a target, then recovery: the pruned network goes on learning as the student did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edgekd.devices import profiles
from edgekd.distillation.distill import networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning.narrow import Narrowed, check_reachable, narrow
from edgekd.recipe.settings import PruneSettings, PruneTarget
from edgekd.runs import Role, Run, Stage, Untrained, settings_json
from edgekd.stages import _facts
from edgekd.stages.distill import Continuation, distilled


@dataclass(frozen=True)
class Pruned:
    """A network before its recovery and after."""

    pruned: Checkpoint
    recovered: Checkpoint


def _check(untrained: Untrained) -> None:
    """Raises ModelError or UsageError for what cannot be pruned, or recovered, as the recipe asks."""
    settings, student = untrained.recipe.prune, untrained.student
    assert settings is not None
    if settings.objective is not None:
        build_terms(settings.objective, networks_for(student, untrained.teacher or student, untrained.data))
    # What can be cut does not depend on the weights.
    check_reachable(
        student,
        measure=settings.target.measure,
        target=settings.target.share,
        multiple=channel_multiple(settings),
        image_size=untrained.image_size,
    )


def _of_pruned(checkpoint: Checkpoint) -> list[str]:
    metrics = checkpoint.metrics
    name = {"macs": "MACs", "parameters": "parameters"}[metrics["measure"]]
    return [f"{metrics['kept']:.1%} of the {name} left", f"{metrics['parameters']:,} parameters"]


STAGE = Stage(
    "prune", "Pruned", version=1, section="prune", example="{target: {macs: 0.5}}", facts=_of_pruned, check=_check
)
RECOVER = Stage("recover", "Recovered", version=1, section="prune", facts=_facts.of_network)

RECOVERED = Role("pruned", "Pruned and recovered", "pruned and recovered", shape="triangle-up", colour="blue")


def prune(run: Run, student: Checkpoint, continuation: Continuation) -> Pruned | None:
    """The student pruned and recovered; None where the recipe leaves it out."""
    settings = run.recipe.prune
    if settings is None:
        return run.finish(STAGE, None)
    narrower = pruned(run, student, settings)
    made = Pruned(narrower, recovered(run, narrower, settings, continuation))
    return run.finish(STAGE, made, made.recovered)


def pruned(run: Run, student: Checkpoint, settings: PruneSettings) -> Checkpoint:
    """Fewer channels, and not yet recovered."""
    target, multiple = settings.target, channel_multiple(settings)
    return run.stage(
        STAGE,
        Checkpoint,
        settings={"target": settings_json(target), "multiple": multiple},
        inputs={"student": student},
        make=lambda out: prune_checkpoint(student, target, multiple, out),
    )


def recovered(run: Run, narrower: Checkpoint, settings: PruneSettings, continuation: Continuation) -> Checkpoint:
    """Trained further, on the section's objective where it has one."""
    if continuation.train is not None:
        return continuation.train(RECOVER, narrower, settings)
    objective = settings.objective or continuation.objective
    return distilled(run, narrower, continuation.teacher, continuation.data, settings, objective, stage=RECOVER)


def channel_multiple(settings: PruneSettings) -> int:
    """What widths are rounded to."""
    return settings.multiple or profiles.find(settings.device).channel_multiple


def prune_checkpoint(student: Checkpoint, target: PruneTarget, multiple: int, out: Path) -> Checkpoint:
    """Narrow a trained network to a target. Nothing is trained here: the accuracy falls until it is recovered.

    Args:
        multiple: widths that change become multiples of this.
        out: an empty folder, which becomes the checkpoint; its manifest replays the pruning.

    Raises:
        ModelError: the network cannot be pruned or the target is out of reach.
    """
    architecture = student.details.architecture
    preprocessing = student.details.preprocessing
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
        training=student.details.training,
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


def _check_rebuilds(saved: Checkpoint, narrowed: Narrowed, image_size: int) -> None:
    """A network whose history does not replay would be lost with this process."""
    example = torch.linspace(-1.0, 1.0, 3 * image_size**2).reshape(1, 3, image_size, image_size)
    with torch.no_grad():
        same = torch.equal(checkpoints.load(saved)(example), narrowed.model(example))
    if not same:
        raise ModelError("the pruned network does not rebuild from its history", hint="leave the prune section out")
