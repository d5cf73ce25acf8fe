"""The identity of an exported file: which network, in which variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class ModelId:
    """One exported file. Its text is a label for people and for stages' names, and is never parsed.

    Attributes:
        role: which of the run's networks: "teacher", "student", …
        variant: the name of the export variant.
    """

    role: str
    variant: str

    def __str__(self) -> str:
        return f"{self.role}-{self.variant}"

    def to_json(self) -> dict[str, str]:
        """The fields that identify this model in a row of JSON; `model` is its label."""
        return {"model": str(self), "role": self.role, "variant": self.variant}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ModelId:
        """The model that a row is about; see to_json()."""
        return cls(str(row["role"]), str(row["variant"]))


def labelled(models: Mapping[ModelId, T]) -> dict[str, T]:
    """The same mapping by the models' labels, for a stage's inputs."""
    return {str(name): model for name, model in models.items()}
