"""Distillation schemes: which networks learn from which, on what data.

There is one file per scheme, named after it, which exports `SCHEME`. A scheme composes stages over a Run. A plan calls
it too, so that an artifact's contents may only be read inside a stage's `make`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from edgekd import plugins
from edgekd.data.dataset import Dataset
from edgekd.data.sources import source_named
from edgekd.distillation import teachers
from edgekd.distillation.classifier_reuse import reuse_teacher_classifier
from edgekd.distillation.distill import networks_for
from edgekd.distillation.method import method_named
from edgekd.distillation.objective_settings import changing_student, inherited
from edgekd.distillation.terms import build_terms
from edgekd.errors import PluginError, UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.own_input import with_student_input
from edgekd.recipe.settings import ModelSettings, RecipeSettings, SchemeSettings, TermSettings, models_in
from edgekd.runs import Run, Untrained
from edgekd.stages import distill as distilling
from edgekd.stages.distill import Continuation, Distilled
from edgekd.training.train import initial


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A scheme as its file declares it.

    Attributes:
        parameters: what a recipe may set beside the scheme's name: a strict pydantic model.
        distill: (run, teacher, data, parameters) to Distilled: makes the student, stage by stage.
        needs_teacher: whether the recipe must have a `teacher` or must have none; None: it may have one.
        one_teacher: its student learns from one teacher by stages.distill.distilled(): then stored outputs, and
            methods that change the student (simkd), work with it.
        assisted: it puts a network between a teacher and a far smaller student.
        trains: whether the student is trained, so that it is compared with one trained on labels only.
        sees_labels: its student sees the labels of all training images, so that they can be drawn by class, and pruning
            may use them.
        multilabel: it has a meaning for images with any number of the classes.
        same_classes: the models in its parameters are built for the data's classes.
        formerly: the scheme of an earlier version that it was a `kind` of; the first of them by name was the default.
        check: (recipe, parameters): raises UsageError for mistakes in a recipe, before anything runs.
        check_classes: (parameters, classes): the same for mistakes that depend on the data's classes.
        check_networks: (recipe, parameters, teacher, data): the same for those that depend on the untrained teacher.
    """

    parameters: type[BaseModel]
    distill: Callable[[Run, Any, Dataset, Any], Distilled]
    needs_teacher: bool | None
    one_teacher: bool = False
    assisted: bool = False
    trains: bool = True
    sees_labels: bool = True
    multilabel: bool = False
    same_classes: bool = True
    formerly: str | None = None
    check: Callable[[RecipeSettings, Any], None] | None = None
    check_classes: Callable[[Any, tuple[str, ...]], None] | None = None
    check_networks: Callable[[RecipeSettings, Any, Any, Dataset], None] | None = None

    def check_declaration(self) -> None:
        """Raises PluginError where a misspelt parameter would be ignored."""
        if self.parameters.model_config.get("extra") != "forbid":
            raise PluginError(
                f"its parameters, {self.parameters.__name__}, accept unknown keys",
                allowed="a subclass of edgekd.recipe.settings.Settings",
            )

    def parse(self, settings: SchemeSettings) -> BaseModel:
        """The scheme's parameters in a recipe, with defaults.

        Args:
            settings: the recipe's `distill.scheme`.

        Returns:
            An instance of `parameters`.

        Raises:
            pydantic.ValidationError: an unknown or wrong parameter.
        """
        return self.parameters.model_validate_json(json.dumps(settings.parameters, default=os.fspath))

    def check_recipe(self, recipe: RecipeSettings) -> None:
        """Check the rest of a recipe against the scheme.

        Raises:
            UsageError: the teacher is missing or superfluous, its outputs cannot be stored, a loss cannot be used,
                images cannot be drawn by class, or the scheme's own check finds a mistake.
            pydantic.ValidationError: its parameters.
        """
        name = recipe.distill.scheme.name
        if recipe.data.task == "multilabel" and not self.multilabel:
            suited = [name for name, scheme in plugins.load_all("scheme").items() if scheme.multilabel]
            raise UsageError(
                f"{name} needs images of exactly one class",
                found="data.task: multilabel",
                allowed=f"the schemes {', '.join(suited)}",
            )
        _check_labels(self, name, recipe)
        _check_teacher(self, name, recipe)
        _check_outputs(self, name, recipe)
        _check_objective(self, name, recipe)
        if recipe.data.balance != "none" and not self.sees_labels:
            raise UsageError(
                f"{name} trains its student on images without labels, which cannot be drawn by class",
                found=f"data.balance: {recipe.data.balance}",
                hint="remove data.balance",
            )
        if recipe.prune is not None and recipe.prune.importance == "taylor" and not self.sees_labels:
            raise UsageError(
                f"prune.importance: taylor needs labels of all training images, which {name} does without",
                allowed="auto, group-norm, magnitude or batch-norm",
            )
        if self.check is not None:
            self.check(recipe, self.parse(recipe.distill.scheme))


def scheme_named(name: str) -> Scheme:
    """A scheme by its name.

    Raises:
        UnknownNameError: there is no such scheme.
        PluginError: its file is broken.
    """
    scheme: Scheme = plugins.load("scheme", name)
    return scheme


def adapted(recipe: RecipeSettings) -> RecipeSettings:
    """A recipe as it is run.

    Its data section takes what it does not set from the student's weights, and there is no baseline where the scheme
    trains no student that could be compared with it.

    Raises:
        ModelError, ArtifactError: the student's weights have a description that cannot be followed.
    """
    recipe = with_student_input(recipe)
    if trains(recipe):
        return recipe
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"baseline": False})})


def trains(recipe: RecipeSettings) -> bool:
    """Whether the recipe's scheme trains the student; otherwise it is taken as it is."""
    return scheme_named(recipe.distill.scheme.name).trains


def distill(run: Run, teacher: Checkpoint | None, data: Dataset) -> Distilled:
    """The student, as the recipe's scheme makes it.

    Args:
        run: with the recipe.
        teacher: None for a scheme without one.
        data: the recipe's.
    """
    settings = run.recipe.distill.scheme
    scheme = scheme_named(settings.name)
    own = replace(run, code=plugins.code_key("scheme", settings.name))
    made = scheme.distill(own, teacher, data, scheme.parse(settings))
    return run.finish(STAGE, made, made.student)


def continuation(run: Run, student: Distilled, teacher: Checkpoint | None, data: Dataset) -> Continuation:
    """How pruned and quantized students are trained further.

    Args:
        run: with the recipe.
        student: the result of the scheme.
        teacher: None for a scheme without one: then the student itself takes its place.
        data: the recipe's.
    """
    objective = inherited(student.objective or run.recipe.distill.objective, run.recipe.data.task)
    labelled = scheme_named(run.recipe.distill.scheme.name).sees_labels
    return Continuation(teacher or student.student, student.learns_from or data, objective, student.train, labelled)


def teacher_warnings(run: Run, teacher: Checkpoint | None, baseline: Checkpoint | None) -> tuple[str, ...]:
    """Show warnings about the recipe's teacher, before a student learns from it.

    Args:
        run: with the recipe; a plan has no metrics yet, and so no warnings.
        teacher: None for a scheme without one.
        baseline: to compare it with; None if the recipe turns it off.

    Returns:
        The warnings.
    """
    if teacher is None or not run.store.makes:
        return ()
    settings = run.recipe.distill
    found = teachers.teacher_warnings(teacher, settings.objective)
    if baseline is not None:
        assisted = scheme_named(settings.scheme.name).assisted
        found += teachers.gap_warnings(teacher, baseline, assisted=assisted)
    run.warn(found)
    return tuple(found)


def models_named(recipe: RecipeSettings) -> list[ModelSettings]:
    """All models in the parameters of a recipe's scheme, whatever their classes."""
    return models_in(scheme_named(recipe.distill.scheme.name).parse(recipe.distill.scheme))


def models_of(recipe: RecipeSettings, classes: tuple[str, ...]) -> list[ModelSettings]:
    """The models in a scheme's parameters that are built for the data's classes.

    Args:
        recipe: with the scheme and its parameters.
        classes: the data's.

    Raises:
        UsageError: the parameters do not fit the classes; see Scheme.check_classes.
    """
    settings = recipe.distill.scheme
    scheme = scheme_named(settings.name)
    parameters = scheme.parse(settings)
    if scheme.check_classes is not None:
        scheme.check_classes(parameters, classes)
    return models_in(parameters) if scheme.same_classes else []


def _check_networks(untrained: Untrained) -> None:
    """Check the built, untrained networks against the scheme and its losses.

    Raises:
        UsageError: an objective names an unknown layer, or layers that it cannot compare.
        EdgekdError: the scheme's own check finds a mistake.
    """
    recipe, teacher, data = untrained.recipe, untrained.teacher, untrained.data
    scheme = scheme_named(recipe.distill.scheme.name)
    if scheme.check_networks is not None:
        scheme.check_networks(recipe, scheme.parse(recipe.distill.scheme), teacher, data)
    if teacher is not None and not scheme.assisted:  # an assisted student never learns from it
        # A new copy, because a loss may modify the student and other checks need it unmodified.
        student, architecture = initial(recipe.student.model_copy(update={"pretrained": False}), data)
        objective = recipe.distill.objective
        reuse_teacher_classifier(student, teacher, architecture, objective, untrained.shape)
        build_terms(recipe.distill.objective, networks_for(student, teacher, data))


# The stage with the checks that only a scheme can make.
STAGE = replace(distilling.STAGE, check=_check_networks)


def _check_labels(scheme: Scheme, name: str, recipe: RecipeSettings) -> None:
    if source_named(recipe.data.source).labelled or not scheme.trains:
        return
    others = [other for other, known in plugins.load_all("scheme").items() if not known.trains]
    raise UsageError(
        f"{name} trains and measures on labels, and the source {recipe.data.source} has none",
        allowed=f"distill.scheme: {' or '.join(others)}, for a student that is trained",
        hint="or bring labels: docs/data.md",
    )


def _check_teacher(scheme: Scheme, name: str, recipe: RecipeSettings) -> None:
    objective = recipe.distill.objective
    if scheme.needs_teacher and recipe.teacher is None:
        raise UsageError(f"{name} needs a teacher", hint="add a teacher section")
    if scheme.needs_teacher is False and recipe.teacher is not None:
        raise UsageError(f"{name} does not use a teacher", found="a teacher section", hint="remove the teacher section")
    if (changing := changing_student(objective)) and not scheme.one_teacher:
        raise UsageError(
            f"{changing[0].method} puts one teacher's classifier on the student, "
            f"which the scheme {name} does not support"
        )
    if scheme.needs_teacher and not any(method_named(term.method).needs_teacher for term in objective):
        raise UsageError(
            f"{name} learns from a teacher, but no loss uses it",
            found=", ".join(term.method for term in objective),
            hint="add one to distill.objective, e.g. {method: kd}",
        )


def _check_outputs(scheme: Scheme, name: str, recipe: RecipeSettings) -> None:
    wanted, objective = recipe.distill.teacher_outputs, recipe.distill.objective
    if wanted.store != "off" and not scheme.one_teacher:
        raise UsageError(f"{name} has no single teacher whose outputs could be stored", allowed="teacher_outputs: off")
    if wanted.store == "on" and (featured := _on_features(objective)):
        raise UsageError(
            f"stored outputs are logits, and {', '.join(featured)} compares the teacher's layers, so it has to run",
            allowed="teacher_outputs: off, or auto",
        )
    whole = [term.method for term in objective if _needs_every_logit(term)]
    if wanted.store != "off" and wanted.top_k is not None and whole:
        raise UsageError(f"top_k divides the tail evenly, but {', '.join(whole)} uses every logit", hint="remove top_k")


def _check_objective(scheme: Scheme, name: str, recipe: RecipeSettings) -> None:
    for section in recipe.compiled:
        if read := _on_features(recipe.objectives[section]):
            raise UsageError(
                f"{', '.join(read)} reads layers while the network runs, which a compiled network does not allow",
                hint=f"remove {section}.compile",
            )
    if cold := [term.method for term in recipe.distill.objective if term.warmup_epochs >= recipe.distill.epochs]:
        raise UsageError(
            f"{', '.join(cold)} would still be warming up at the end",
            found=f"warmup_epochs of {recipe.distill.epochs} or more",
            allowed="less than distill.epochs",
        )


def _on_features(objective: Sequence[TermSettings]) -> list[str]:
    return [term.method for term in objective if method_named(term.method).on_features]


def _needs_every_logit(term: TermSettings) -> bool:
    method = method_named(term.method)
    return method.whole_row or method.standardizes(term)
