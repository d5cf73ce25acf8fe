"""Stores that make nothing: for a plan of a run, and for the list of a chain's stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import A, StageLabel, State, Store, finished, record_of


@dataclass(frozen=True)
class PlannedStage:
    name: str
    title: str
    state: State
    why: str


class Plan(Store):
    """A store that runs nothing and lists what would be reused and what would run."""

    makes = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stages: list[PlannedStage] = []

    def stage(
        self,
        kind: type[A],
        label: StageLabel,
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
    ) -> A:
        waiting = [role for role, artifact in inputs.items() if is_pending(artifact)]
        if waiting:
            self.stages.append(
                PlannedStage(label.name, label.title or label.name, "planned", f"needs {', '.join(waiting)} first")
            )
            return cast(A, _Pending())
        record = record_of(label, settings, inputs)
        place = self.place_of(record)
        if place.exists():
            self.stages.append(PlannedStage(label.name, label.title or label.name, "reused", place.name))
            return finished(kind, place, record)
        begun = (self.root / "partial" / place.name).exists()
        self.stages.append(
            PlannedStage(
                label.name, label.title or label.name, "run", "resumes an interrupted run" if begun else "not made yet"
            )
        )
        return cast(A, _Pending())


class Outline(Store):
    """A store for listing a chain's stages: nothing is read or made, every artifact is pending."""

    makes = False

    def __init__(self) -> None:
        super().__init__(Path())

    def stage(
        self,
        kind: type[A],
        label: StageLabel,
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
    ) -> A:
        return cast(A, _Pending())


class _Pending(Artifact):
    """A placeholder for an artifact that is not made yet."""

    kind = "pending"

    def __init__(self) -> None:
        pass


def is_pending(artifact: Artifact) -> bool:
    """Whether an artifact is a plan's placeholder for one that is not made yet."""
    return isinstance(artifact, _Pending)
