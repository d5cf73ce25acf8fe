"""Several teachers, one student: their outputs are combined into one before the losses are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation import distill as stage
from edgekd.distillation.objective import Distillation, Outputs, Source, Teacher
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import build_terms
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings, TeacherSettings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._objective import check_on_logits
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.stages.train import teacher_stage
from edgekd.training.host import best_device
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with

Combine = Literal["mean", "confidence", "entropy"]


class Parameters(Settings):
    """The further teachers, and how the outputs are combined."""

    teachers: tuple[TeacherSettings, ...] = Field(
        description="the further teachers, at least one, each with the keys of the recipe's teacher"
    )
    combine: Combine = Field(
        "mean",
        description="confidence: more weight where a teacher fits the label; entropy: where its entropy is lower",
    )


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for a single teacher, a loss on features, and two teachers that would be the same network."""
    if not parameters.teachers:
        raise UsageError(
            "an ensemble needs more than one teacher", allowed="one or more in distill.scheme.teachers beside teacher"
        )
    check_on_logits("ensemble", recipe.distill.objective, why="several teachers have several sets of layers")
    seen = [recipe.teacher]
    for teacher in parameters.teachers:
        if teacher in seen:
            raise UsageError(
                "two of the teachers are the same network, which adds nothing",
                found=f"{teacher.model} twice, with equal settings",
                hint="give one another train.seed, model or checkpoint",
            )
        seen.append(teacher)


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage per further teacher, then one for the student; later stages use the recipe's teacher only."""
    others = {
        f"teacher{number}": teacher_stage(run, f"teacher{number}", settings, data)
        for number, settings in enumerate(parameters.teachers, 2)
    }
    teachers = {"teacher": teacher, **others}
    objective = run.recipe.distill.objective
    student = trained(
        run,
        STAGE,
        run.recipe.distill,
        key={
            "scheme": "ensemble",
            "combine": parameters.combine,
            "model": origin_of(run.recipe.student),
            "objective": objective_json(objective),
        },
        inputs={**teachers, "data": data},
        make=lambda out: _distill(run, teachers, data, parameters.combine, out),
    )
    return Distilled(student, others)


def _distill(run: Run, teachers: Mapping[str, Checkpoint], data: Dataset, combine: Combine, out: Path) -> Checkpoint:
    recipe = run.recipe
    objective = recipe.distill.objective
    for teacher in teachers.values():
        stage.check_classes(teacher, data)
    settings = recipe.distill
    sources = {
        role: Teacher.of(teacher, best_device(), settings.teacher_precision, use_compile=settings.compile)
        for role, teacher in teachers.items()
    }

    def objective_of(student: nn.Module) -> Distillation:
        terms = build_terms(objective, stage.networks_for(student, None, data))
        return Distillation(student, Ensemble(tuple(sources.values()), combine), terms)

    return train_with(
        objective_of,
        Learner(recipe.student),
        data,
        TrainingSetup(recipe.distill, recipe.data.augment, run.progress(STAGE.name)),
        out,
        record=Record(
            training={
                "teachers": {role: teacher.digest for role, teacher in teachers.items()},
                "combine": combine,
                "objective": objective_json(objective),
            },
            warnings=[
                f"{role}: {warning}"
                for role, teacher in teachers.items()
                for warning in stage.teacher_warnings(teacher, objective)
            ],
            of_objective=lambda _: {"teacher_precision": {role: source.precision for role, source in sources.items()}},
        ),
    )


class Ensemble:
    """All teachers, live, as one.

    The output is Σ_k w_k (z_k − mean(z_k)): the teachers' logits, each row centred, weighted. A softmax of it is, at
    every temperature and up to normalisation, the weighted geometric mean of the teachers' probabilities. That is why
    logits are averaged and not probabilities, whose mean would need another logarithm for each temperature. The
    mean of a row of logits carries no information, as softmax ignores it; without centring, a teacher's mean would
    still be a target for losses that compare logits as numbers (mse).

    Args:
        teachers: at least two.
        combine: how an image's teachers are weighted; see weights().
    """

    def __init__(self, teachers: Sequence[Source], combine: Combine) -> None:
        self._teachers = teachers
        self._combine = combine

    def __call__(self, batch: Batch) -> Outputs:
        logits = torch.stack([teacher(batch).logits for teacher in self._teachers])
        share = weights(logits, batch.targets, self._combine)
        centred = logits - logits.mean(2, keepdim=True)
        return Outputs((share.unsqueeze(2) * centred).sum(0))


def weights(logits: Tensor, targets: Tensor, combine: Combine) -> Tensor:
    """Each teacher's share of each image's combined output; an image's shares sum to one.

    mean: 1/K (You et al. 2017, learning from multiple teacher networks, there of softened outputs).
    confidence: (1 − softmax_k(CE_k)) / (K − 1), CE_k the cross-entropy with the label: CA-MKD (Zhang, Chen and Wang
        2022). They weight each teacher's loss; here its logits, so that any loss can follow.
    entropy: softmax_k(−H_k), H_k the entropy of a teacher's output in nats. Weights from entropy, without labels, are
        Kwon et al.'s (2020); this form, unlike 1/H_k, stays finite where a teacher is certain. For two teachers it is
        CA-MKD's formula with H instead of CE.

    Args:
        logits: (K, B, C), K ≥ 2.
        targets: (B,) class indices; only confidence uses them.
        combine: one of these three.

    Returns:
        (K, B).
    """
    count, size = logits.shape[:2]
    if combine == "mean":
        return logits.new_full((count, size), 1 / count)
    logs = F.log_softmax(logits.float(), 2)
    if combine == "entropy":
        return F.softmax((logs.exp() * logs).sum(2), 0)
    loss = -logs.gather(2, targets.expand(count, size).unsqueeze(2)).squeeze(2)
    return (1 - F.softmax(loss, 0)) / (count - 1)


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=True, check=check)
