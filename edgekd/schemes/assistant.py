"""Teacher, then assistant, then student: for a student that is far smaller than its teacher.

Source: Mirzadeh et al., Improved Knowledge Distillation via Teacher Assistant (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from torch import nn

from edgekd import schemes
from edgekd.data.dataset import Dataset
from edgekd.distillation.classifier_reuse import reuse_teacher_classifier
from edgekd.distillation.distill import networks_for
from edgekd.distillation.method import method_named
from edgekd.distillation.terms import build_terms
from edgekd.errors import UnknownNameError, UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import (
    DistillSettings,
    ModelSettings,
    Positive,
    RecipeSettings,
    SchemeSettings,
    TermSettings,
)
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme
from edgekd.stages import _facts
from edgekd.stages.distill import Distilled, Guidance, distilled
from edgekd.training.train import initial

ASSISTANT = Stage("assistant", "Assistant", version=1, facts=_facts.network_facts)
_STEPS = {"epochs", "batch_size", "optimizer", "learning_rate", "weight_decay"}


class Parameters(ModelSettings):
    """The assistant: a model, and the settings of its distillation that differ from the student's."""

    epochs: Positive | None = Field(None, description="default: distill.epochs")
    batch_size: Positive | None = Field(None, description="default: distill.batch_size")
    optimizer: Literal["sgd", "adamw"] | None = Field(None, description="default: distill.optimizer")
    learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(None, description="default: distill.learning_rate")
    weight_decay: Annotated[float, Field(ge=0.0)] | None = Field(None, description="default: distill.weight_decay")
    objective: tuple[TermSettings, ...] | None = Field(
        None, min_length=1, description="what it learns from the teacher; default: distill.objective"
    )

    @property
    def assistant(self) -> ModelSettings:
        """The assistant's model."""
        return ModelSettings(**self.model_dump(include=set(ModelSettings.model_fields)))

    def settings(self, student: DistillSettings) -> DistillSettings:
        """The settings of the assistant's distillation: the student's, except those that are set here."""
        own: dict[str, Any] = self.model_dump(include=_STEPS, exclude_none=True)
        objective = self.objective or student.objective
        return student.model_copy(update={**own, "objective": objective, "scheme": SchemeSettings(name="offline")})


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Check the assistant against the student.

    Raises:
        UsageError: it is the student itself or cannot be distilled, or the objective names layers,
            which would apply to two different pairs.
    """
    if parameters.assistant == recipe.student:
        raise UsageError(
            "the assistant is the student itself",
            found=recipe.student.model,
            allowed="a network between teacher and student in size",
        )
    named = [term.method for term in recipe.distill.objective if term.student_layers or term.teacher_layers]
    if named:
        raise UsageError(
            f"distill.objective names layers for {named[0]}, but there are three networks in two pairs",
            allowed="no layers: they are chosen for each pair",
            hint="give the assistant its own objective if the teacher's layers matter to it",
        )
    _check_objective(parameters.objective or ())
    offline = recipe.model_copy(update={"distill": parameters.settings(recipe.distill)})
    schemes.scheme_named("offline").check_recipe(offline)


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module, data: Dataset) -> None:
    """Build the two pairs, untrained: teacher and assistant, assistant and student. Raises as build_terms()."""
    own = parameters.settings(recipe.distill)
    assistant = _paired(parameters.assistant, teacher, data, own.objective)
    _paired(recipe.student, assistant, data, recipe.distill.objective)


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """Two stages: the assistant from the teacher, the student from the assistant."""
    settings, student = run.recipe.distill, run.recipe.student
    own = parameters.settings(settings)
    assistant = distilled(run, parameters.assistant, Guidance(teacher, data, own.objective), own, stage=ASSISTANT)
    made = distilled(run, student, Guidance(assistant, data, settings.objective), settings)
    return Distilled(made, {"assistant": assistant})


def _paired(model: ModelSettings, teacher: nn.Module, data: Dataset, objective: Sequence[TermSettings]) -> nn.Module:
    """The untrained student of a pair, with the changes that its objective makes to it."""
    learner, architecture = initial(model.model_copy(update={"pretrained": False}), data)
    reuse_teacher_classifier(learner, teacher, architecture, objective, data.details.preprocessing.shape)
    build_terms(objective, networks_for(learner, teacher, data))
    return learner


def _check_objective(objective: Sequence[TermSettings]) -> None:
    for index, term in enumerate(objective):
        try:
            method_named(term.method).check(term)
        except UnknownNameError as error:
            raise UsageError(f"objective[{index}]: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"objective[{index}], {term.method}: {key}: {first['msg']}") from None


SCHEME = Scheme(
    parameters=Parameters,
    distill=distill,
    needs_teacher=True,
    one_teacher=True,
    assisted=True,
    multilabel=True,
    check=check,
    check_networks=check_networks,
)
