"""One trained teacher, one student: the classical way (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

from pydantic import Field

from edgekd.data.dataset import Dataset
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.stages.distill import Distilled, Guidance, distilled


class Parameters(Settings):
    """The views of the images."""

    cross_view: bool = Field(False, description="the teacher sees another view of the image than the student")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for stored outputs of views that the teacher would not see."""
    if parameters.cross_view and recipe.distill.teacher_outputs.store == "on":
        raise UsageError(
            "cross_view shows the teacher another view than the stored ones", hint="set distill.teacher_outputs: off"
        )


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage."""
    recipe = run.recipe
    settings, objective = recipe.distill, recipe.distill.objective
    student = distilled(run, recipe.student, Guidance(teacher, data, objective, parameters.cross_view), settings)
    return Distilled(student)


SCHEME = Scheme(
    parameters=Parameters, distill=distill, needs_teacher=True, one_teacher=True, multilabel=True, check=check
)
