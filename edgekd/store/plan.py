"""Stores that make nothing: for a plan of a run, and for the list of a chain's stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from edgekd import safe_json
from edgekd.errors import PluginError
from edgekd.store.artifacts import MANIFEST, Artifact, Json, StageRecord, canonical
from edgekd.store.store import A, StageLabel, State, Store, facts_of_reused, finished, record_of

_SHOWN = 4
_MISSING = object()


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
        waiting = {each.stage for each in inputs.values() if isinstance(each, _Pending)}
        if waiting:
            # The last of them alone: the others stand above it.
            return cast(A, self._pending(label, "planned", f"after {self._last_of(waiting)}"))
        record = record_of(label, settings, inputs)
        place = self.place_of(record)
        if place.exists():
            self._add(label, "reused", place.name)
            artifact = finished(kind, place, record)
            facts_of_reused(label, artifact)  # refused as a run would refuse it
            return artifact
        if (self.root / "partial" / place.name).exists():
            return cast(A, self._pending(label, "run", "resumes an interrupted run"))
        earlier = self._latest(label.name)
        why = _changed(earlier, record) if earlier is not None else "not made yet"
        return cast(A, self._pending(label, "run", why))

    def expect(self, artifact: A, *, note: str, metrics: Json, **members: object) -> None:
        """Let a placeholder answer what is known before its artifact is made. Nothing happens to one that is there.

        Args:
            artifact: of the stage that was planned last.
            note: what is expected, added to the stage's reason.
            metrics: of the artifact.
            members: further ones of the artifact, e.g. its details.
        """
        if isinstance(artifact, _Pending):
            vars(artifact).update(members, metrics=metrics)
            self.stages[-1] = replace(self.stages[-1], why=f"{self.stages[-1].why}: {note}")

    def _last_of(self, names: Collection[str]) -> str:
        return next(stage.name for stage in reversed(self.stages) if stage.name in names)

    def _add(self, label: StageLabel, state: State, why: str) -> None:
        self.stages.append(PlannedStage(label.name, label.title or label.name, state, why))

    def _pending(self, label: StageLabel, state: State, why: str) -> _Pending:
        self._add(label, state, why)
        return _Pending(label.name)

    def _latest(self, name: str) -> StageRecord | None:
        """The record of the stage's newest artifact, of whatever settings."""
        found = []
        for file in self.root.glob(f"stages/{name}-*/{MANIFEST}"):
            with suppress(OSError, ValueError, TypeError, KeyError):  # what is damaged explains nothing
                record = StageRecord.model_validate(safe_json.loads(file.read_bytes())["stage"])
                if record.name == name:
                    found.append((file.stat().st_mtime, record))
        return max(found, key=lambda each: each[0])[1] if found else None


def _changed(earlier: StageRecord, record: StageRecord) -> str:
    """What distinguishes a stage from its last artifact: its settings by path, and its inputs."""
    # As JSON, in which the earlier one was stored: a tuple is a list there.
    before, after = _flat(earlier.settings), _flat(json.loads(canonical(record.settings)))
    names = [name for name in {**before, **after} if before.get(name, _MISSING) != after.get(name, _MISSING)]
    names += [
        role for role in {**earlier.inputs, **record.inputs} if earlier.inputs.get(role) != record.inputs.get(role)
    ]
    if earlier.version != record.version or not names:  # the stage's code, or the artifacts' format
        names.append("edgekd")
    return f"changed: {_few(names)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _flat(settings: Json, above: str = "") -> Json:
    """Nested settings by their dotted paths."""
    flat: Json = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat


@dataclass(frozen=True)
class PlannedTraining:
    """A stage that trains a network: for so many epochs, with a teacher or without."""

    name: str
    epochs: int
    teacher: bool


class Outline(Store):
    """A store for listing a chain's stages: nothing is read or made, every artifact is pending.

    Attributes:
        trainings: the stages that have epochs in their settings, in order.
    """

    makes = False

    def __init__(self) -> None:
        super().__init__(Path())
        self.trainings: list[PlannedTraining] = []

    def stage(
        self,
        kind: type[A],
        label: StageLabel,
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
    ) -> A:
        if isinstance(epochs := settings.get("epochs"), int):
            self.trainings.append(PlannedTraining(label.name, epochs, "teacher" in inputs))
        return cast(A, _Pending(label.name))


class _Pending(Artifact):
    """A placeholder for an artifact that is not made yet, by a stage of this name."""

    kind = "pending"

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def __repr__(self) -> str:
        return f"<the artifact of the stage {self.stage}, not made yet>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise PluginError(
            f"the artifact of the stage {self.stage} is looked at before it is made",
            found=f"its {name}",
            allowed="a chain or a scheme passes artifacts on; before the training, none is made yet",
            hint="look at it in a stage's `make`, which is called when its inputs are there",
        )


def is_pending(artifact: Artifact) -> bool:
    """Whether an artifact is a plan's placeholder for one that is not made yet."""
    return isinstance(artifact, _Pending)


def is_described(artifact: Artifact) -> bool:
    """Whether an artifact's details can be read: it is made, or a plan knows them beforehand; see Plan.expect()."""
    return "details" in vars(artifact)
