"""No distillation: a trained student is taken as it is, to be pruned, quantized and exported.

Pruned and quantized students are trained further by the recipe's objective: from the teacher where the recipe has one,
else from the answers of the student before. For images without labels it is all that there is.
"""

from __future__ import annotations

from dataclasses import replace

from edgekd.data.dataset import Dataset
from edgekd.data.sources import source_named
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._unlabelled import check_later_stages, without_labels
from edgekd.stages.distill import STAGE, Distilled
from edgekd.training import train as training

_TITLE = "Student, as given"


class Parameters(Settings):
    """None."""


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError where there is no trained student, or without labels something would need them."""
    if recipe.student.checkpoint is None and not recipe.student.pretrained:
        raise UsageError(
            "none takes a trained student as it is, and the recipe has none",
            hint="set student.checkpoint to its weights, or student.pretrained: true",
        )
    if source_named(recipe.data.source).labelled:
        return
    if recipe.teacher is not None:
        raise UsageError(
            f"the source {recipe.data.source} has no labels: the student is measured by its own float answers",
            found="a teacher section",
            hint="remove the teacher section",
        )
    check_later_stages(recipe, f"the source {recipe.data.source} has none")


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """The student's checkpoint, measured on the validation split."""
    student = run.stage(
        replace(STAGE, title=_TITLE),
        Checkpoint,
        settings={"model": training.origin_of(run.recipe.student)},
        inputs={"data": data},
        make=lambda out: training.adopt(run.recipe.student, data, out),
    )
    labelled = source_named(run.recipe.data.source).labelled
    objective = None if labelled else without_labels(run.recipe.distill.objective)
    return Distilled(student, objective=objective, titles={"student": _TITLE})


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=None, trains=False, multilabel=True, check=check)
