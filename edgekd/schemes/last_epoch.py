"""A student that learns from its own outputs of the epoch before.

Source: Kim, Ji, Yoon and Hwang, Self-Knowledge Distillation with Progressive Refinement of Targets (2021, PS-KD): the
targets are (1 − α_t) y + α_t p_{t−1}(x), α_t = α_T · t / T in epoch t of T. Yang et al., Snapshot Distillation (2019),
also learn from an earlier epoch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation.distill import networks_for
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import Seen, Terms, build_terms
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings, TermSettings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._objective import check_labels, check_on_logits, check_outputs, objective_or
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.store.artifacts import Json
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with, training_loader

# The default of distill.objective; the two are weighted by the share.
OBJECTIVE = (
    TermSettings.model_validate({"method": "kd", "weight": 1.0, "temperature": 1.0}),
    TermSettings(method="cross_entropy", weight=1.0),
)
_LARGEST_HALF = torch.finfo(torch.float16).max


class Parameters(Settings):
    """The weight of the outputs of the epoch before."""

    share: Annotated[float, Field(gt=0.0, le=1.0, description="weight of its own outputs, in the last epoch")] = 0.8
    growing: bool = Field(True, description="the share grows with the epochs (PS-KD); else it is constant")


class LastEpoch(nn.Module):
    """What fit() minimises: terms on the student's own outputs of the epoch before, weighted α_t; the others 1 − α_t.

    In the first epoch α is 0. The outputs are logits for the view of that epoch, in half precision: 2·N·C bytes, held
    with the student and saved with each epoch's state. For a sample that no epoch has shown yet (the last, short batch
    is left out) they are the student's current ones, which give no gradient.

    Args:
        terms: losses on logits.
        shape: (N, C), images and classes.
        steps: in one epoch.
        epochs: T.
        share: α of the last epoch.
        growing: α_t = share · t / T, else α = share from the second epoch on.
    """

    step: Tensor
    memory: Tensor

    def __init__(
        self, terms: Terms, *, shape: tuple[int, int], steps: int, epochs: int, share: float, growing: bool
    ) -> None:
        super().__init__()
        self.terms = terms
        self._steps, self._epochs, self._share, self._growing = steps, epochs, share, growing
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("memory", torch.full(shape, torch.nan, dtype=torch.float16))

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of a batch by the names of their terms; stores the batch's logits for the next epoch."""
        logits: Tensor = model(batch.images)
        now, before = logits.detach().float(), self.memory[batch.indices].float()
        targets = torch.where(before.isnan(), now, before)
        losses: dict[str, Tensor] = self.terms(Seen(logits, targets, batch.targets, batch.indices, epoch=batch.epoch))
        share = self.share_now()
        self.memory[batch.indices] = now.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
        self.step += 1
        on_outputs = [term.method.needs_teacher for term in self.terms.each]
        return {
            name: value * (share if compares else 1.0 - share)
            for (name, value), compares in zip(losses.items(), on_outputs, strict=True)
        }

    def share_now(self) -> Tensor:
        """α_t, a scalar on the memory's device."""
        epoch = self.step // self._steps
        share = self._share * (epoch + 1) / self._epochs if self._growing else self._share
        return (epoch > 0) * torch.as_tensor(share, dtype=torch.float32)


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError if no loss compares outputs of two networks, one compares layers, or none uses labels."""
    objective = objective_or(recipe, OBJECTIVE)
    check_outputs("last-epoch", objective)
    check_on_logits("last-epoch", objective, why="only the last epoch's logits are kept")
    check_labels("last-epoch", objective)


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage. Later stages train with the same objective, the student as the teacher."""
    recipe, objective = run.recipe, objective_or(run.recipe, OBJECTIVE)
    settings, augment = recipe.distill, recipe.data.augment
    options: Json = {"scheme": "last-epoch", **parameters.model_dump(), "objective": objective_json(objective)}

    def make(out: Path) -> Checkpoint:
        loader = training_loader(data, settings, augment)

        def objective_of(student: nn.Module) -> LastEpoch:
            networks = networks_for(student, None, data)
            return LastEpoch(
                build_terms(objective, networks),
                shape=(networks.sample_count, len(data.classes)),
                steps=len(loader),
                epochs=settings.epochs,
                share=parameters.share,
                growing=parameters.growing,
            )

        return train_with(
            objective_of,
            Learner(recipe.student),
            data,
            TrainingSetup(settings, augment, run.progress(STAGE.name)),
            out,
            loader=loader,
            record=Record(training=options),
        )

    key = {**options, "model": origin_of(recipe.student)}
    student = trained(run, STAGE, settings, key=key, inputs={"data": data}, make=make)
    return Distilled(student, objective=objective)


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=False, check=check, formerly="self")
