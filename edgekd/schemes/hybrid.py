"""One teacher and several losses whose weights are learned too.

Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics
(2018), section 3.2, whose tasks are losses here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation import distill as stage
from edgekd.distillation.objective import Distillation
from edgekd.distillation.objective_settings import objective_json
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._objective import known_methods
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.store.artifacts import Json
from edgekd.training.bf16 import inference_precision
from edgekd.training.host import best_device
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with


class Parameters(Settings):
    """The limits of the learned weights."""

    limit: Annotated[float, Field(gt=1.0, le=1e6)] = Field(
        100.0, description="the largest factor by which a weight may rise or fall from its value on the first batch"
    )


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for a single loss, or a loss whose weight cannot be learned."""
    methods = [term.method for term in recipe.distill.objective]
    if len(methods) < 2:
        raise UsageError(
            "hybrid learns the weights of several losses",
            found=f"one loss: {methods[0]}",
            allowed="two terms or more in distill.objective",
            hint="add e.g. {method: cross_entropy}, or leave the scheme out",
        )
    # A loss below zero has no meaning as a likelihood with noise: its weight would only grow.
    if signed := [method.name for method in known_methods(recipe.distill.objective) if method.signed]:
        raise UsageError(
            f"{signed[0]} falls below zero: it learns its own uncertainty",
            allowed="losses that are never negative",
            hint="leave it out, or use scheme: offline",
        )
    if warmed := [term.method for term in recipe.distill.objective if term.warmup_epochs > 0]:
        raise UsageError(
            f"a loss is weighted in units of its value on the first batch, where {warmed[0]} would still be 0",
            found="warmup_epochs",
            allowed="no warm-up: the weights are learned",
            hint="leave it out, or use scheme: offline",
        )


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage."""
    recipe = run.recipe
    student = trained(
        run,
        STAGE,
        recipe.distill,
        key={
            "scheme": "hybrid",
            "limit": parameters.limit,
            "model": origin_of(recipe.student),
            "objective": objective_json(recipe.distill.objective),
        },
        inputs={"teacher": teacher, "data": data},
        make=lambda out: _distill(run, teacher, data, parameters.limit, out),
    )
    return Distilled(student)


def _distill(run: Run, teacher: Checkpoint, data: Dataset, limit: float, out: Path) -> Checkpoint:
    recipe, objective = run.recipe, run.recipe.distill.objective
    stage.check_classes(teacher, data)
    network = checkpoints.load(teacher)
    precision, why = inference_precision(teacher, network, best_device(), recipe.distill.teacher_precision)

    def objective_of(student: nn.Module) -> Hybrid:
        live = stage.Live(precision, compile=recipe.distill.compile)
        return Hybrid(stage.objective_over(student, network, data, objective, live=live), limit)

    return train_with(
        objective_of,
        Learner(recipe.student),
        data,
        TrainingSetup(recipe.distill, recipe.data.augment, run.progress(STAGE.name)),
        out,
        record=Record(
            training={"teacher": teacher.digest, "objective": objective_json(objective)},
            warnings=stage.teacher_warnings(teacher, objective),
            of_objective=lambda learned: {
                "teacher_precision": {"precision": precision, "why": why},
                **_learned(learned),
            },
        ),
    )


class Hybrid(nn.Module):
    """Σ_i exp(−s_i) L_i / U_i + s_i, with s_i learned beside the student and U_i the first value of L_i.

    s_i = log σ_i², the noise of a loss; it begins at 0. The paper's Gaussian likelihood gives
    half of this sum; the ½ is left out, which does not change the minimum. For a fixed loss the best factor exp(−s_i)
    is U_i / L_i: every loss is weighted relative to its current value.

    Why U_i: a loss in the thousands would fill the gradient that fit() clips, so that neither the other losses nor its
    own s_i would move before the training is over. In units of its value on the first batch (as in GradNorm, Chen et
    al. 2018) every loss begins at 1, and the weights that the recipe gives cancel out.

    The closer L_i comes to 0, the larger its best weight, without limit, so that one small loss would outweigh the
    others: s_i is clamped to [−log limit, log limit] before each step. It is clamped, not squashed, so that it leaves
    the bound as soon as its gradient points away from it.

    Args:
        distillation: gives the L_i, none of them negative.
        limit: the largest of the factors, and 1 / limit the smallest.
    """

    units: Tensor

    def __init__(self, distillation: Distillation, limit: float) -> None:
        super().__init__()
        self.distillation = distillation
        self._bound = math.log(limit)
        count = len(distillation.terms.names)
        self.log_variance = nn.Parameter(torch.zeros(count))
        # 0 until the loss was first seen above 0.
        self.register_buffer("units", torch.zeros(count))

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses by their names, and as `uncertainty` the penalty Σ s_i of the learned weights."""
        with torch.no_grad():
            self.log_variance.clamp_(-self._bound, self._bound)
        losses = self.distillation(model, batch)
        values = torch.stack(list(losses.values()))
        self.units = torch.where(self.units > 0, self.units, values.detach())
        weighted = self._factors(self.log_variance) * values
        return {**dict(zip(losses, weighted, strict=True)), "uncertainty": self.log_variance.sum()}

    @torch.no_grad()
    def weights(self) -> dict[str, float]:
        """The current weight of each loss by its name, for an objective with fixed weights."""
        terms = self.distillation.terms
        factors = self._factors(self.log_variance.clamp(-self._bound, self._bound)).tolist()
        given = [term.weight for term in terms.each]
        return {name: weight * factor for name, weight, factor in zip(terms.names, given, factors, strict=True)}

    def _factors(self, log_variance: Tensor) -> Tensor:
        return torch.exp(-log_variance) / torch.where(self.units > 0, self.units, torch.ones_like(self.units))


def _learned(objective: nn.Module) -> Json:
    assert isinstance(objective, Hybrid)
    return {"learned_weights": objective.weights()}


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=True, check=check)
