"""A store that only computes keys: what a stage's key depends on can be seen without making anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.store.artifacts import Artifact, Json, digest
from edgekd.store.plan import Plan
from edgekd.store.store import StageLabel


class Unmade(Artifact):
    """Has a digest, and no files."""

    kind = "unmade"

    def __init__(self, key: str) -> None:
        self._key = key

    @property
    def digest(self) -> str:
        return self._key


@dataclass
class Requested:
    """A stage that was requested."""

    name: str
    settings: Json
    inputs: dict[str, str] = field(default_factory=dict)


class Keys(Plan):
    """Every artifact is unmade, its digest the key of its stage; `requested` lists the stages in order."""

    def __init__(self, root: Path = Path()) -> None:
        super().__init__(root)
        self.requested: list[Requested] = []

    def stage(self, kind: type[Any], label: StageLabel, *, settings: Json, inputs: Any, make: object) -> Any:
        digests = {role: artifact.digest for role, artifact in inputs.items()}
        self.requested.append(Requested(label.name, settings, digests))
        return Unmade(digest([label.name, label.version, settings, digests]))
