"""Ways of distilling: who teaches whom, and on what. A file each; the file's name is the scheme's. It has these names:

    Parameters                  what a recipe may say beside the scheme's name: a strict pydantic model
    TEACHER: bool               whether the recipe's `teacher` is needed; without it, none may be named
    distill(links, teacher, data, parameters) -> Distilled
                                makes the student, stage by stage over `links`; a plan calls it too, so that what an
                                artifact holds may only be read inside a stage's `make`

A scheme may also have `check(recipe, parameters)`, which raises a UsageError for what can be known to be wrong before
anything runs, and `ONE_TEACHER = True`, where its student learns through links.distilled: then stored outputs, and
methods that change the student (simkd), work with it.
`check_classes(parameters, classes)` raises a UsageError for what the data's classes show to be wrong, and
`check_networks(recipe, parameters, teacher, data)` what the built, untrained teacher shows, before anything is trained;
`SAME_CLASSES = False` says that the models in its parameters know other classes than the data has, `ASSISTED = True`
that it puts a network between a teacher and a far smaller student.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from edgekd import plugins
from edgekd.distillation.method import method_named
from edgekd.distillation.objective_settings import changing_student
from edgekd.errors import UsageError
from edgekd.recipe.settings import (
    AugmentSettings,
    DataSettings,
    ModelSettings,
    RecipeSettings,
    RecoverySettings,
    SchemeSettings,
    StepSettings,
    TeacherSettings,
    TermSettings,
    TrainSettings,
)
from edgekd.store.artifacts import Artifact, Checkpoint, Dataset, Json
from edgekd.store.store import A, Store
from edgekd.training.fit import BeginEpoch, Progress


@dataclass(frozen=True)
class Distilled:
    """What a scheme leaves.

    Attributes:
        student: what goes on through the chain.
        others: networks that are exported, scored and measured beside it, by their role in the report.
        objective: what pruned and quantized students go on learning; None: the recipe's.
        learns_from: the images that they may see; None: all of the recipe's.
        further: how they go on learning, where that is not on one teacher's answers.
        heads: the data of the student's further heads, by name.
    """

    student: Checkpoint
    others: Mapping[str, Checkpoint] = field(default_factory=dict)
    objective: tuple[TermSettings, ...] | None = None
    learns_from: Dataset | None = None
    further: Further | None = None
    heads: Mapping[str, Dataset] = field(default_factory=dict)


class Further(Protocol):
    """Trains a pruned or quantized student further, as one stage called `name`.

    Args:
        said: what else decides about it, for its key.
        begin_epoch: see fit().
    """

    def __call__(
        self,
        name: str,
        student: Checkpoint,
        settings: RecoverySettings,
        *,
        said: Json | None = None,
        begin_epoch: BeginEpoch | None = None,
    ) -> Checkpoint: ...


class Links(Protocol):
    """The chain, as far as a scheme uses it. Every method is one stage (or as many as it says), reused where equal."""

    @property
    def recipe(self) -> RecipeSettings: ...

    @property
    def store(self) -> Store: ...

    def prepared(self, name: str, settings: DataSettings) -> Dataset:
        """A data set of its own."""
        ...

    def taught(
        self,
        name: str,
        settings: TeacherSettings,
        data: Dataset,
        *,
        augment: AugmentSettings | None = None,
        main: Dataset | None = None,
    ) -> Checkpoint:
        """A teacher: trained here, or taken as it is.

        Args:
            augment: how its images are varied; default: as the recipe says.
            main: the recipe's data, which its networks are built for, where `data` has other classes.
        """
        ...

    def trained(self, name: str, model: ModelSettings, settings: TrainSettings, data: Dataset) -> Checkpoint:
        """A network from labels alone."""
        ...

    def distilled(
        self,
        name: str,
        student: ModelSettings | Checkpoint,
        teacher: Checkpoint,
        data: Dataset,
        settings: StepSettings,
        objective: Sequence[TermSettings],
        *,
        cross_view: bool = False,
    ) -> Checkpoint:
        """A student on one teacher's answers."""
        ...

    def made(
        self,
        name: str,
        *,
        version: int,
        settings: StepSettings,
        said: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], Checkpoint],
    ) -> Checkpoint:
        """A network that the scheme trains itself. The key holds `settings`' steps, the augmentation, `said` and the
        inputs; the models of recipe and scheme are built once before `make` runs, so that what is wrong costs nothing.
        """
        ...

    def checked(self, data: Dataset, make: Callable[[Path], A]) -> Callable[[Path], A]:
        """`make` of a stage that a scheme brings to the store itself, behind the check that made() describes."""
        ...

    def progress(self, name: str) -> Progress | None:
        """What fit() is to tell how it gets on."""
        ...


def parameters_of(settings: SchemeSettings) -> BaseModel:
    """What a recipe says to its scheme, defaults filled in.

    Raises:
        UnknownNameError: no such scheme.
        pydantic.ValidationError: its parameters.
    """
    model: type[BaseModel] = plugins.load("scheme", settings.name).Parameters
    return model.model_validate_json(json.dumps(settings.parameters, default=os.fspath))


def check(recipe: RecipeSettings) -> None:
    """What a scheme makes of the rest of a recipe.

    Raises:
        UsageError: it lacks its teacher, cannot store its outputs, or what its own check says.
    """
    said, wanted = recipe.distill.scheme, recipe.distill.teacher_outputs
    scheme, objective = plugins.load("scheme", said.name), recipe.distill.objective
    if scheme.TEACHER and recipe.teacher is None:
        raise UsageError(f"{said.name} needs a teacher", hint="add a teacher section")
    if not scheme.TEACHER and recipe.teacher is not None:
        raise UsageError(f"{said.name} does without a teacher", found="a teacher section", hint="leave it out")
    one_teacher = getattr(scheme, "ONE_TEACHER", False)
    if wanted.store != "off" and not one_teacher:
        raise UsageError(f"{said.name} has no one teacher to store the outputs of", allowed="teacher_outputs: off")
    if (changing := changing_student(objective)) and not one_teacher:
        raise UsageError(f"{changing[0].method} puts one teacher's classifier on the student: not with {said.name}")
    featured = _on_features(objective)
    if wanted.store == "on" and featured:
        raise UsageError(
            f"stored outputs are logits, and {', '.join(featured)} asks for the teacher's layers: it has to run anyway",
            allowed="teacher_outputs: off, or auto",
        )
    for name, section in (("distill", recipe.distill), ("prune", recipe.prune)):
        read = _on_features(section.objective or ()) if section is not None and section.compile else []
        if read:
            raise UsageError(
                f"{', '.join(read)} reads layers while the network runs, which a compiled one does not let it do",
                hint=f"leave {name}.compile out",
            )
    whole = [term.method for term in objective if _needs_every_logit(term)]
    if wanted.store != "off" and wanted.top_k is not None and whole:
        raise UsageError(
            f"top_k shares the tail out evenly, and {', '.join(whole)} looks at every logit", hint="leave top_k out"
        )
    if scheme.TEACHER and not any(method_named(term.method).needs_teacher for term in objective):
        raise UsageError(
            f"{said.name} learns from a teacher, and no loss asks it",
            found=", ".join(term.method for term in objective),
            hint="add one to distill.objective, e.g. {method: kd}",
        )
    if cold := [term.method for term in objective if term.warmup_epochs >= recipe.distill.epochs]:
        raise UsageError(
            f"{', '.join(cold)} would still be warming up at the end",
            found=f"warmup_epochs of {recipe.distill.epochs} epochs or more",
            allowed="less than distill.epochs",
        )
    if hasattr(scheme, "check"):
        scheme.check(recipe, parameters_of(said))


def _on_features(objective: Sequence[TermSettings]) -> list[str]:
    return [term.method for term in objective if method_named(term.method).on_features]


def _needs_every_logit(term: TermSettings) -> bool:
    method = method_named(term.method)
    return method.whole_row or method.standardizes(term)


def models_over(settings: SchemeSettings, classes: tuple[str, ...]) -> list[ModelSettings]:
    """The models of a scheme's parameters that are built for these classes; Raises what its check_classes() does."""
    scheme, parameters = plugins.load("scheme", settings.name), parameters_of(settings)
    if hasattr(scheme, "check_classes"):
        scheme.check_classes(parameters, classes)
    return models_in(parameters) if getattr(scheme, "SAME_CLASSES", True) else []


def models_in(value: Any) -> list[ModelSettings]:
    """Every model that a scheme's parameters name."""
    if isinstance(value, ModelSettings):
        return [value]
    if isinstance(value, BaseModel):
        return [model for name in type(value).model_fields for model in models_in(getattr(value, name))]
    if isinstance(value, (list, tuple)):
        return [model for item in value for model in models_in(item)]
    if isinstance(value, Mapping):
        return [model for item in value.values() for model in models_in(item)]
    return []
