"""A virtual teacher instead of a network: always right, with equal probabilities for all other classes.

Source: Yuan, Tay, Li, Wang and Feng, Revisiting Knowledge Distillation via Label Smoothing Regularization (2020),
Tf-KD_reg: the teacher gives p(k) = a to the right class and (1 − a) / (C − 1) to each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation.distill import networks_for
from edgekd.distillation.objective import Distillation, Outputs
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import build_terms
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings, TermSettings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._objective import check_on_logits, check_outputs, objective_or
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.store.artifacts import Json
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with

# Where the recipe leaves distill.objective out. The weights and the temperature are ours: kd multiplies by T², which
# Tf-KD_reg, as far as is known, does not.
OBJECTIVE = (
    TermSettings.model_validate({"method": "kd", "weight": 0.1, "temperature": 20.0}),
    TermSettings(method="cross_entropy", weight=0.9),
)


class Parameters(Settings):
    """The virtual teacher."""

    probability: Annotated[float, Field(gt=0.0, lt=1.0, description="of the right class")] = 0.99


class VirtualTeacher:
    """Gives every image p(k) = a for its label and (1 − a) / (C − 1) for the others; see objective.Source.

    Its logits are log p, so that a loss' own temperature softens them as it softens any teacher's.

    Args:
        probability: a.
        classes: C.
    """

    def __init__(self, probability: float, classes: int) -> None:
        self._classes = classes
        self._right = torch.tensor(probability).log()
        self._wrong = (torch.tensor(1.0 - probability) / max(classes - 1, 1)).log()

    def __call__(self, batch: Batch) -> Outputs:
        right = nn.functional.one_hot(batch.targets, self._classes).bool()
        return Outputs(torch.where(right, self._right.to(right.device), self._wrong.to(right.device)))


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError if no loss compares outputs of two networks, or one compares layers."""
    objective = objective_or(recipe, OBJECTIVE)
    check_outputs("teacher-free", objective)
    check_on_logits("teacher-free", objective, why="its teacher is not a network")


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage. Pruned and quantized students are trained further with the recipe's objective.

    This objective assumes an almost certain virtual teacher; a trained network is not one.
    """
    recipe, objective = run.recipe, objective_or(run.recipe, OBJECTIVE)
    options: Json = {"scheme": "teacher-free", **parameters.model_dump(), "objective": objective_json(objective)}

    def make(out: Path) -> Checkpoint:
        virtual = VirtualTeacher(parameters.probability, len(data.classes))
        return train_with(
            lambda student: Distillation(student, virtual, build_terms(objective, networks_for(student, None, data))),
            Learner(recipe.student),
            data,
            TrainingSetup(recipe.distill, recipe.data.augment, run.progress(STAGE.name)),
            out,
            record=Record(training=options),
        )

    key = {**options, "model": origin_of(recipe.student)}
    return Distilled(trained(run, STAGE, recipe.distill, key=key, inputs={"data": data}, make=make))


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=False, check=check, formerly="self")
