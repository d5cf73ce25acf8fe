"""A run: one recipe, its store and the console. Stages and schemes are functions over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.recipe.settings import RecipeSettings
from edgekd.runtime.preprocess import InputShape
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.plan import PlannedTraining
from edgekd.store.store import A, StageLabel, Store
from edgekd.training.fit import Progress
from edgekd.training.host import Load, spare_threads

T = TypeVar("T")
Shape = Literal["disc", "square", "diamond", "triangle-up", "triangle-down", "cross", "star"]
Part = Literal["teacher", "baseline", "calibrated", "quantized", "network"]
Colour = Literal["ink", "grey", "accent", "blue", "purple", "ochre", "magenta"]


class Console(Protocol):
    """Shows a stage's progress and warnings; the terminal implements it.

    `expect` gets the trainings of a run before its first stage, by which the time that is left is estimated.
    """

    def expect(self, trainings: Sequence[PlannedTraining]) -> None: ...
    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...
    def warn(self, message: str) -> None: ...


@dataclass(frozen=True)
class Role:
    """A network's role in the chain, and its mark in the report.

    Attributes:
        name: part of a model's identity, e.g. "student".
        title: in tables and charts.
        legend: the text beside the mark in the legend.
        part: in comparisons; "calibrated" is quantized without training, "network" takes no part of its own.
        shape, colour: of the mark.
    """

    name: str
    title: str
    legend: str
    shape: Shape = "triangle-down"
    colour: Colour = "purple"
    part: Part = "network"


@dataclass(frozen=True)
class Untrained:
    """A recipe's untrained networks and its data: what a stage's check is given.

    Attributes:
        teacher: None for a scheme without a teacher.
        shape: of the input.
        training_images: the number of images in the training split.
    """

    recipe: RecipeSettings
    data: Dataset
    student: nn.Module
    teacher: nn.Module | None
    shape: InputShape
    training_images: int


@dataclass(frozen=True)
class Stage:
    """What a stage's file declares about it, for the report, the terminal, the plan and the preflight.

    Attributes:
        name: of its folders in the store, and for `--until`.
        title: in the report.
        version: part of its key; raised when the same settings make another artifact.
        section: the recipe's section without which the stage is skipped; None: it always runs.
        example: a minimal section, as YAML, for messages.
        compares: whether a run up to this stage trains the baseline, to compare with it.
        facts: from its artifact to short lines for the report and the terminal.
        check: finds errors before anything is trained. Raises EdgekdError.
        check_machine: likewise finds what this machine cannot do; it is run each time, also where an earlier run on
            another machine passed. Raises EdgekdError.
    """

    name: str
    title: str
    version: int
    section: str | None = None
    example: str = "{}"
    compares: bool = False
    facts: Callable[[Any], Sequence[str]] = lambda _: ()
    check: Callable[[Untrained], None] | None = None
    check_machine: Callable[[RecipeSettings], None] | None = None


def _ignore(stage: Stage, artifact: Artifact | None) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """The context that every stage and scheme is given.

    Attributes:
        reached: called after each stage of the chain, with its artifact if it made one.
        stages: the chain's stages in order, whose checks the preflight runs; empty where they are not known.
        code: identifies code from outside that the stages run: part of every key.
        load: by which each stage gets the number of threads that other processes leave cores for.
    """

    recipe: RecipeSettings
    store: Store
    console: Console | None = None
    reached: Callable[[Stage, Artifact | None], None] = _ignore
    stages: tuple[Stage, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    load: Load = field(default_factory=Load, compare=False)

    def stage(
        self,
        stage: Stage,
        kind: type[A],
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
        name: str | None = None,
        title: str | None = None,
    ) -> A:
        """The artifact of an equal earlier stage, or a new one from `make(out)`.

        Args:
            stage: the stage to run.
            kind: the artifact's class.
            settings: everything besides the inputs that the artifact depends on.
            inputs: artifacts by role.
            make: writes the artifact into an empty folder.
            name, title: for a stage that runs several times, e.g. for several teachers; default: the stage's own.

        Raises:
            ArtifactError, StoreError: see Store.stage(); EdgekdError: whatever `make` raises.
        """
        label = StageLabel(name or stage.name, stage.version, title or stage.title, stage.facts)

        def made(out: Path) -> A:
            with spare_threads(self.load):
                return make(out)

        return self.store.stage(kind, label, settings={**settings, **self.code}, inputs=inputs, make=made)

    def finish(self, stage: Stage, result: T, artifact: Artifact | None = None) -> T:
        """Announce that a stage of the chain is done; a stage's function ends with this call.

        Args:
            result: what the stage's function returns.
            artifact: the artifact to announce where the result holds several; default: the result, if it is one.

        Returns:
            The result.
        """
        self.reached(stage, artifact if artifact is not None or not isinstance(result, Artifact) else result)
        return result

    def progress(self, name: str) -> Progress | None:
        """A callback for a stage's progress, called as (done, total, note); None without a console."""
        return partial(self.console.progress, name) if self.console is not None else None

    def warn(self, messages: Sequence[str]) -> None:
        if self.console is not None:
            for message in messages:
                self.console.warn(message)


def part_of(progress: Progress | None, part: int, parts: int, note: str) -> Callable[[int, int], None] | None:
    """A callback (done, total) for one of several equal parts of a stage's work.

    Args:
        progress: the stage's.
        part: its number, from 0.
        parts: how many there are.
        note: what the part is.
    """
    return None if progress is None else lambda done, total: progress(part * total + done, parts * total, note)


def settings_json(settings: BaseModel, exclude: set[str] | None = None) -> Json:
    """Settings as JSON, for a stage's key."""
    return settings.model_dump(mode="json", exclude=exclude)
