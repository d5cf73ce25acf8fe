"""A run: one recipe, the store that keeps what is made, and the console. Stages and schemes are functions over it."""

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
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import A, StageLabel, Store
from edgekd.training.fit import Progress

T = TypeVar("T")
Shape = Literal["disc", "square", "diamond", "triangle-up", "triangle-down", "cross", "star"]
Colour = Literal["ink", "grey", "accent", "blue", "purple", "ochre", "magenta"]


class Console(Protocol):
    """Shows how a stage gets on; the terminal implements it."""

    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...
    def warn(self, message: str) -> None: ...


@dataclass(frozen=True)
class Role:
    """What a network is in the chain, and how the report marks it.

    Attributes:
        name: part of a model's identity, e.g. "student".
        title: in tables and charts.
        legend: what the mark stands for.
        shape, colour: of the mark; the page draws these.
    """

    name: str
    title: str
    legend: str
    shape: Shape = "triangle-down"
    colour: Colour = "purple"


@dataclass(frozen=True)
class Untrained:
    """A recipe's networks, built and not trained, and the data: what a stage's check looks at.

    Attributes:
        teacher: None where the scheme has none.
        image_size: side of the square that the networks see.
        training_images: how many there are.
    """

    recipe: RecipeSettings
    data: Dataset
    student: nn.Module
    teacher: nn.Module | None
    image_size: int
    training_images: int


@dataclass(frozen=True)
class Stage:
    """What a stage's file declares about it: report, terminal, plan, preflight and `--until` know no more than this.

    Attributes:
        name: of its folders in the store, and for `--until`.
        title: in the report.
        version: part of its key; raised where the same settings make something else.
        section: the recipe's section without which the stage is left out; None: it always runs.
        example: the least that such a section can be, as YAML, for messages.
        compares: what it makes, or what comes before it, is compared with the baseline.
        facts: from its artifact to short lines for the report and the terminal.
        check: what can be known to be wrong before anything is trained. Raises EdgekdError.
    """

    name: str
    title: str
    version: int
    section: str | None = None
    example: str = "{}"
    compares: bool = False
    facts: Callable[[Any], Sequence[str]] = lambda _: ()
    check: Callable[[Untrained], None] | None = None


def _ignore(stage: Stage, artifact: Artifact | None) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """What every stage and scheme is given.

    Attributes:
        reached: called with each stage of the chain that is done, and its artifact, if it made one.
        stages: of the chain, in order, where they are known beforehand: what the preflight asks for checks.
        code: identifies code from outside that the stages run: part of every key.
    """

    recipe: RecipeSettings
    store: Store
    console: Console | None = None
    reached: Callable[[Stage, Artifact | None], None] = _ignore
    stages: tuple[Stage, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)

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
            settings: all that decides about the artifact beside its inputs.
            name, title: where one stage is run several times, as for several teachers; default: the stage's own.

        Raises:
            ArtifactError, StoreError: see Store.stage(); else as `make`.
        """
        label = StageLabel(name or stage.name, stage.version, title or stage.title, stage.facts)
        return self.store.stage(kind, label, settings={**settings, **self.code}, inputs=inputs, make=make)

    def finish(self, stage: Stage, made: T, artifact: Artifact | None = None) -> T:
        """Announce that a stage of the chain is done, and return what it made: a stage's function ends with it.

        Args:
            artifact: what stands for it, where it made several; default: what it made, if that is one.
        """
        self.reached(stage, artifact if artifact is not None or not isinstance(made, Artifact) else made)
        return made

    def progress(self, name: str) -> Progress | None:
        """What a stage reports its progress to, as (done, total, note)."""
        return partial(self.console.progress, name) if self.console is not None else None

    def warn(self, messages: Sequence[str]) -> None:
        if self.console is not None:
            for message in messages:
                self.console.warn(message)


def settings_json(settings: BaseModel, exclude: set[str] | None = None) -> Json:
    """Settings as a stage's key holds them."""
    return settings.model_dump(mode="json", exclude=exclude)
