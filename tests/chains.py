"""The chain's stages behind the student, called one by one, for tests that have no use for files and latencies."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd import schemes
from edgekd.data.dataset import Dataset
from edgekd.models.checkpoint import Checkpoint
from edgekd.preflight import check as preflight_checks
from edgekd.preflight import preflight
from edgekd.recipe.settings import RecipeSettings
from edgekd.runs import Run
from edgekd.stages import data as data_stage
from edgekd.stages import prune as prune_stage
from edgekd.stages import quantize as quantize_stage
from edgekd.stages import train as train_stage
from edgekd.stages.distill import Continuation, Distilled
from edgekd.stages.prune import Pruned, prune
from edgekd.stages.quantize import Quantized, quantize
from edgekd.stages.reparameterize import reparameterize
from edgekd.store.plan import Outline


@dataclass(frozen=True)
class Networks:
    data: Dataset
    teacher: Checkpoint | None
    student: Distilled
    continuation: Continuation
    pruned: Pruned | None
    quantized: Quantized | None


def check_networks(recipe: RecipeSettings, data: Dataset) -> None:
    """The preflight's checks of a whole chain, for data that is there."""
    stages = [schemes.STAGE, prune_stage.STAGE, quantize_stage.STAGE]
    asked = [stage for stage in stages if stage.section is None or getattr(recipe, stage.section) is not None]
    preflight_checks(Run(recipe, Outline()), data, asked)


def checked(run: Run) -> None:
    """Data and preflight: what a run does before its first training."""
    preflight(run, data_stage.data(run))


def distilled(run: Run) -> Distilled:
    """Everything up to the student, as a run makes it, without the preflight."""
    data = data_stage.data(run)
    return schemes.distill(run, train_stage.teacher(run, data), data)


def networks(run: Run) -> Networks:
    """Everything up to the quantized network, without the preflight."""
    data = data_stage.data(run)
    teacher = train_stage.teacher(run, data)
    student = reparameterize(run, schemes.distill(run, teacher, data), data)
    continuation = schemes.continuation(run, student, teacher, data)
    pruned = prune(run, student.student, continuation)
    final = pruned.recovered if pruned is not None else student.student
    return Networks(data, teacher, student, continuation, pruned, quantize(run, final, continuation))
