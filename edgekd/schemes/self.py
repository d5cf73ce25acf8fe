"""A student that learns from itself: from its own earlier generation, its last epoch, or a teacher made of rules.

born-again      Furlanello, Lipton, Tschannen, Itti and Anandkumar, Born Again Neural Networks (2018): generation 0
                learns from labels, each later one is the same model, distilled from the one before.
last-epoch      Kim, Ji, Yoon and Hwang, Self-Knowledge Distillation with Progressive Refinement of Targets (2021,
                PS-KD): the targets are (1 − α_t) y + α_t p_{t−1}(x), α_t = α_T · t / T in epoch t of T. Yang et al.,
                Snapshot Distillation (2019), learn from an earlier epoch too.
teacher-free    Yuan, Tay, Li, Wang and Feng, Revisiting Knowledge Distillation via Label Smoothing Regularization
                (2020, Tf-KD_reg): the teacher says p(k) = a for the right class and (1 − a) / (C − 1) for each other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation.distill import networks_for
from edgekd.distillation.objective import Answers, Distillation
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import Seen, Terms, build_terms
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings, Settings, TermSettings
from edgekd.runs import Run
from edgekd.schemes import Scheme
from edgekd.schemes._objective import Objective, check_answers, check_labels, check_on_logits, said_or
from edgekd.stages import train
from edgekd.stages.distill import STAGE, Distilled, distilled, trained
from edgekd.store.artifacts import Json
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with, training_loader

_SEEDS_BETWEEN = 1000
_LARGEST_HALF = torch.finfo(torch.float16).max
# Which kind a parameter belongs to.
_KIND_OF = {
    "generations": "born-again",
    "share": "last-epoch",
    "growing": "last-epoch",
    "probability": "teacher-free",
}


def _kd_and_labels(temperature: float, kd: float, labels: float) -> Objective:
    answers = TermSettings.model_validate({"method": "kd", "weight": kd, "temperature": temperature})
    return answers, TermSettings(method="cross_entropy", weight=labels)


# Where the recipe leaves distill.objective out; born again takes the recipe's own default. The weights and the
# temperature of teacher-free are ours: kd multiplies by T², which Tf-KD_reg, as far as is known, does not.
_OBJECTIVES = {"last-epoch": _kd_and_labels(1.0, 1.0, 1.0), "teacher-free": _kd_and_labels(20.0, 0.1, 0.9)}


class Parameters(Settings):
    kind: Literal["born-again", "last-epoch", "teacher-free"] = "born-again"
    generations: Annotated[int, Field(ge=1, description="born-again: distilled ones after the first")] = 1
    share: Annotated[float, Field(gt=0.0, le=1.0, description="last-epoch: of its own answers, at the end")] = 0.8
    growing: bool = Field(True, description="last-epoch: the share grows with the epochs (PS-KD); else it is constant")
    probability: Annotated[float, Field(gt=0.0, lt=1.0, description="teacher-free: of the right class")] = 0.99

    @model_validator(mode="after")
    def _of_its_kind(self) -> Parameters:
        strange = [name for name, kind in _KIND_OF.items() if name in self.model_fields_set and kind != self.kind]
        if strange:
            raise ValueError(f"{strange[0]} belongs to kind: {_KIND_OF[strange[0]]}, and the kind is {self.kind}")
        return self


class LastEpoch(nn.Module):
    """What fit() minimises: terms on the student's own answers of the epoch before, weighted α_t; the others 1 − α_t.

    In the first epoch α is 0. The answers are those to the view of that epoch, in half precision: 2·N·C bytes, held
    with the student and saved with each epoch's state. A sample that no epoch has shown yet (the last, short batch is
    left out) is answered with what the student says now, which pulls it nowhere.

    Args:
        terms: losses on logits.
        samples, classes: N and C.
        steps: of one epoch.
        share: α of the last epoch.
        growing: α_t = share · t / T, else α = share from the second epoch on.
    """

    step: Tensor
    memory: Tensor

    def __init__(
        self, terms: Terms, *, samples: int, classes: int, steps: int, epochs: int, share: float, growing: bool
    ) -> None:
        super().__init__()
        self.terms = terms
        self._steps, self._epochs, self._share, self._growing = steps, epochs, share, growing
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("memory", torch.full((samples, classes), torch.nan, dtype=torch.float16))

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits: Tensor = model(batch.images)
        now, before = logits.detach().float(), self.memory[batch.indices].float()
        answers = torch.where(before.isnan(), now, before)
        losses: dict[str, Tensor] = self.terms(Seen(logits, answers, batch.targets, batch.indices, epoch=batch.epoch))
        share = self.share_now()
        self.memory[batch.indices] = now.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
        self.step += 1
        asks = [term.method.needs_teacher for term in self.terms.each]
        return {
            name: value * (share if asked else 1.0 - share)
            for (name, value), asked in zip(losses.items(), asks, strict=True)
        }

    def share_now(self) -> Tensor:
        """α_t, a scalar on the memory's device."""
        epoch = self.step // self._steps
        share = self._share * (epoch + 1) / self._epochs if self._growing else self._share
        return (epoch > 0) * torch.as_tensor(share, dtype=torch.float32)


class VirtualTeacher:
    """Always right, and equally unsure of all other classes: p(k) = a for the label, (1 − a) / (C − 1) for the others.

    Its logits are log p, so that a loss' own temperature softens them as it softens any teacher's.
    """

    def __init__(self, probability: float, classes: int) -> None:
        self._classes = classes
        self._right = torch.tensor(probability).log()
        self._wrong = (torch.tensor(1.0 - probability) / max(classes - 1, 1)).log()

    def __call__(self, batch: Batch) -> Answers:
        right = nn.functional.one_hot(batch.targets, self._classes).bool()
        return Answers(torch.where(right, self._right.to(right.device), self._wrong.to(right.device)))


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    objective, said = _objective(recipe, parameters), f"self ({parameters.kind})"
    check_answers(said, objective)
    if parameters.kind == "last-epoch":
        check_on_logits(said, objective, why="only the last epoch's logits are kept")
        check_labels(said, objective)
    if parameters.kind == "teacher-free":
        check_on_logits(said, objective, why="its teacher is no network")


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    if parameters.kind == "born-again":
        return _born_again(run, data, parameters.generations)
    own = [name for name, kind in _KIND_OF.items() if kind == parameters.kind]
    recipe, objective = run.recipe, _objective(run.recipe, parameters)
    said = {
        "kind": parameters.kind,
        **parameters.model_dump(include=set(own)),
        "objective": objective_json(objective),
    }
    fit = {"last-epoch": _last_epoch, "teacher-free": _teacher_free}[parameters.kind]
    student = trained(
        run,
        STAGE,
        recipe.distill,
        key={**said, "model": origin_of(recipe.student)},
        inputs={"data": data},
        make=lambda out: fit(run, data, parameters, said, out),
    )
    # Teacher-free's is for a teacher that is almost certain: a network that answers later is not.
    return Distilled(student, objective=objective if parameters.kind == "last-epoch" else None)


def _objective(recipe: RecipeSettings, parameters: Parameters) -> Objective:
    return said_or(recipe, _OBJECTIVES.get(parameters.kind, recipe.distill.objective))


def _born_again(run: Run, data: Dataset, generations: int) -> Distilled:
    """Generation 0 is the recipe's baseline, trained and shown once; generation g begins from the seed + 1000·g."""
    recipe = run.recipe
    made = [train.trained(run, recipe.student, recipe.distill.training, data)]
    for number in range(1, generations + 1):
        settings = recipe.distill.model_copy(update={"seed": recipe.distill.seed + _SEEDS_BETWEEN * number})
        stage = replace(STAGE, name=f"generation{number}", title=f"Generation {number}")
        objective = recipe.distill.objective
        made.append(distilled(run, recipe.student, made[-1], data, settings, objective, stage=stage))
    others = {f"generation{number}": before for number, before in enumerate(made[:-1])}
    if recipe.distill.baseline:
        del others["generation0"]
    return Distilled(made[-1], others)


def _last_epoch(run: Run, data: Dataset, parameters: Parameters, said: Json, out: Path) -> Checkpoint:
    settings, augment = run.recipe.distill, run.recipe.data.augment
    loader = training_loader(data, settings, augment)

    def objective_of(student: nn.Module) -> LastEpoch:
        networks = networks_for(student, None, data)
        return LastEpoch(
            build_terms(_objective(run.recipe, parameters), networks),
            samples=networks.sample_count,
            classes=len(data.classes),
            steps=len(loader),
            epochs=settings.epochs,
            share=parameters.share,
            growing=parameters.growing,
        )

    return _trained(run, data, said, out)(objective_of, loader=loader)


def _teacher_free(run: Run, data: Dataset, parameters: Parameters, said: Json, out: Path) -> Checkpoint:
    virtual = VirtualTeacher(parameters.probability, len(data.classes))

    def objective_of(student: nn.Module) -> Distillation:
        terms = build_terms(_objective(run.recipe, parameters), networks_for(student, None, data))
        return Distillation(student, virtual, terms)

    return _trained(run, data, said, out)(objective_of)


def _trained(run: Run, data: Dataset, said: Json, out: Path) -> partial[Checkpoint]:
    """train_with(), told all but the objective."""
    return partial(
        train_with,
        learner=Learner(run.recipe.student),
        data=data,
        setup=TrainingSetup(run.recipe.distill, run.recipe.data.augment, run.progress(STAGE.name)),
        out=out,
        record=Record(training=said),
    )


SCHEME = Scheme(Parameters, distill, needs_teacher=False, check=check)
