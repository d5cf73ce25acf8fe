"""Structured pruning to a target, then recovery: further training of the pruned network by distillation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.bench.environment import environment, fingerprint, require_real_processor
from edgekd.bench.measure import require_local
from edgekd.devices import profiles
from edgekd.distillation.distill import networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning import request as requests
from edgekd.pruning.checkpoint import Step, prune_checkpoint
from edgekd.pruning.request import Request
from edgekd.recipe.settings import PruneSettings, RecipeSettings
from edgekd.runs import Role, Run, Stage, Untrained, part_of, settings_json
from edgekd.stages import _facts
from edgekd.stages.distill import Continuation, Guidance, distilled
from edgekd.stages.reparameterize import as_compressed
from edgekd.store.artifacts import Json
from edgekd.training.fit import Progress
from edgekd.wording import counted

_TITLES = {"macs": "MACs", "parameters": "parameters", "size": "file's size", "latency": "latency"}


@dataclass(frozen=True)
class Pruned:
    """The pruned network, before and after its recovery; where it took several steps, of the last one."""

    pruned: Checkpoint
    recovered: Checkpoint


def _check(untrained: Untrained) -> None:
    """Raises ModelError or UsageError where the student cannot be pruned or recovered as the recipe asks."""
    settings, student = untrained.recipe.prune, as_compressed(untrained.student)
    assert settings is not None
    if settings.objective is not None:
        build_terms(settings.objective, networks_for(student, untrained.teacher or student, untrained.data))
    if settings.importance == "taylor" and not untrained.data.details.labelled:
        raise UsageError(
            "prune.importance: taylor needs the loss, and the training images have no labels",
            allowed="group-norm, magnitude or batch-norm",
        )
    requests.check(Request.of(untrained.recipe, settings), student, untrained.shape)


def _check_machine(recipe: RecipeSettings) -> None:
    """Raises BenchError where a latency is to be measured on a device that is not at hand, or that is emulated."""
    if recipe.prune is not None and recipe.prune.target.measure == "latency":
        require_local(profiles.find(recipe.prune.device))
        require_real_processor("prune.target.latency")


def _pruned_facts(checkpoint: Checkpoint) -> list[str]:
    metrics = checkpoint.metrics
    whole = [f"{counted(len(metrics['whole']), 'layer')} left whole"] if metrics["whole"] else []
    left = f"{metrics['macs'] / metrics['before']['macs']:.1%} of the MACs left"
    return [
        f"{metrics['kept']:.1%} of the {_TITLES[metrics['measure']]} left",
        *([left] if metrics["measure"] != "macs" else []),
        f"{metrics['parameters']:,} parameters",
        *whole,
    ]


STAGE = Stage(
    "prune",
    "Pruned",
    version=3,
    section="prune",
    example="{target: {macs: 0.5}}",
    facts=_pruned_facts,
    check=_check,
    check_machine=_check_machine,
)
RECOVER = Stage("recover", "Recovered", version=1, section="prune", facts=_facts.network_facts)

RECOVERED = Role("pruned", "Pruned and recovered", "pruned and recovered", shape="triangle-up", colour="blue")


def prune(run: Run, student: Checkpoint, continuation: Continuation) -> Pruned | None:
    """Prune and recover the student, in one or several steps; None where the recipe has no prune section.

    Args:
        student: the distilled student.
        continuation: how it is recovered.

    Raises:
        ModelError: the network cannot be pruned or the target is out of reach.
        ExportError, BenchError, BackendError: a latency or size that cannot be measured.
        TrainingError: see edgekd.training.fit.
    """
    settings = run.recipe.prune
    if settings is None:
        return run.finish(STAGE, None)
    network, before = student, None
    for number in range(1, settings.steps + 1):
        stage, recovery = (_of_step(each, number, settings.steps) for each in (STAGE, RECOVER))
        before = _pruned(run, stage, _Part(student, network, before, number), settings, continuation)
        network = recovered(run, before, _with_epochs(settings, number), continuation, recovery)
    assert before is not None
    result = Pruned(before, network)
    return run.finish(STAGE, result, result.recovered)


@dataclass(frozen=True)
class _Part:
    """One of the steps: `network` is the student or what the step before recovered, of which `earlier` is the pruned
    network.
    """

    student: Checkpoint
    network: Checkpoint
    earlier: Checkpoint | None
    number: int


def _pruned(run: Run, stage: Stage, part: _Part, settings: PruneSettings, continuation: Continuation) -> Checkpoint:
    """The pruned network, not yet recovered. Raises as prune_checkpoint()."""
    request = Request.of(run.recipe, settings)
    # With labels of more than one task, say, the loss on the images' classes alone is not what the network is for.
    if continuation.train is not None or not continuation.labelled:
        request = request.decided(labelled=False)
    seen = request.needs_images

    def make(out: Path) -> Checkpoint:
        kept = part.earlier.metrics["kept"] if part.earlier is not None else 1.0
        return prune_checkpoint(
            part.network,
            request,
            out,
            data=continuation.data if seen else None,
            step=Step(part.student, kept, settings.steps + 1 - part.number),
            shown=_shown(run.progress(stage.name)),
        )

    return run.stage(
        stage,
        Checkpoint,
        name=stage.name,
        settings={**_key(request), **({"step": [part.number, settings.steps]} if settings.steps > 1 else {})},
        inputs={
            "student": part.network,
            **({"data": continuation.data} if seen else {}),
            **({"origin": part.student, "earlier": part.earlier} if part.earlier is not None else {}),
        },
        make=make,
    )


def _key(request: Request) -> Json:
    key = {
        "target": settings_json(request.target),
        "multiple": request.multiple,
        "importance": request.importance,
        "shares": request.shares,
    }
    if request.target.measure in ("latency", "size"):
        key["opset"] = request.opset
    if request.target.measure == "latency":
        key |= {"device": request.device, "threads": request.threads, "machine": fingerprint(environment())}
    return key


def _shown(progress: Progress | None) -> Callable[[str], Callable[[int, int], None] | None]:
    return lambda note: part_of(progress, 0, 1, note)


def _of_step(stage: Stage, number: int, steps: int) -> Stage:
    """The stage of one of several steps; the last one keeps its name."""
    if number == steps:
        return stage
    return replace(stage, name=f"{stage.name}-{number}", title=f"{stage.title}, step {number} of {steps}")


def _with_epochs(settings: PruneSettings, number: int) -> PruneSettings:
    """The settings with the epochs of one step; the last step has those that are left over."""
    each = max(1, settings.epochs // settings.steps)
    last = max(1, settings.epochs - each * (settings.steps - 1))
    return settings.model_copy(update={"epochs": last if number == settings.steps else each})


def recovered(
    run: Run, network: Checkpoint, settings: PruneSettings, continuation: Continuation, stage: Stage = RECOVER
) -> Checkpoint:
    """The pruned network trained further, on the prune section's objective where it has one. Raises as distilled()."""
    if continuation.train is not None:
        return continuation.train(stage, network, settings)
    objective = settings.objective or continuation.objective
    return distilled(run, network, Guidance(continuation.teacher, continuation.data, objective), settings, stage=stage)
