"""One trained teacher, one student: the classical way (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

from pydantic import Field

from edgekd.errors import UsageError
from edgekd.recipe.settings import RecipeSettings, Settings
from edgekd.schemes import Distilled, Links
from edgekd.store.artifacts import Checkpoint, Dataset

TEACHER = True
ONE_TEACHER = True


class Parameters(Settings):
    cross_view: bool = Field(False, description="the teacher sees another view of the image than the student")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    if parameters.cross_view and recipe.distill.teacher_outputs.store == "on":
        raise UsageError(
            "cross_view shows the teacher another view than the stored ones", hint="set distill.teacher_outputs: off"
        )


def distill(links: Links, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    recipe = links.recipe
    settings, objective = recipe.distill, recipe.distill.objective
    student = links.distilled(
        "distill", recipe.student, teacher, data, settings, objective, cross_view=parameters.cross_view
    )
    return Distilled(student)
