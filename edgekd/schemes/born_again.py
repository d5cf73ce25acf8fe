"""Generations of one model, each distilled from the one before; the first learns from labels.

Source: Furlanello, Lipton, Tschannen, Itti and Anandkumar, Born Again Neural Networks (2018).
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from edgekd.data.dataset import Dataset
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import Positive, RecipeSettings, Settings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._objective import check_outputs
from edgekd.stages import train
from edgekd.stages.distill import STAGE, Distilled, Guidance, distilled

# Generation g starts from the seed + 1000·g: the same seed would give each of them the first one's initial weights.
_SEED_STEP = 1000


class Parameters(Settings):
    """How many generations are trained."""

    generations: Positive = Field(1, description="distilled ones after the first, which learns from labels")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError if no loss compares a student with the generation before."""
    check_outputs("born-again", recipe.distill.objective)


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage per generation; generation 0 is the recipe's baseline, trained and shown once."""
    recipe = run.recipe
    generations = [train.trained(run, recipe.student, recipe.distill.training, data)]
    for number in range(1, parameters.generations + 1):
        settings = recipe.distill.model_copy(update={"seed": recipe.distill.seed + _SEED_STEP * number})
        stage = replace(STAGE, name=f"generation{number}", title=f"Generation {number}")
        objective = recipe.distill.objective
        guidance = Guidance(generations[-1], data, objective)
        generations.append(distilled(run, recipe.student, guidance, settings, stage=stage))
    others = {f"generation{number}": before for number, before in enumerate(generations[:-1])}
    if recipe.distill.baseline:
        del others["generation0"]
    return Distilled(generations[-1], others)


SCHEME = Scheme(
    parameters=Parameters, distill=distill, needs_teacher=False, multilabel=True, check=check, formerly="self"
)
