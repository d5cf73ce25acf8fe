"""Shared parts of the page's sections: model labels, table rows, and figures in two widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from edgekd.report import charts
from edgekd.report.model_record import ModelEntry
from edgekd.report.record import Record
from edgekd.report.svg import Mark

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """A chart, drawn for a desktop and for a phone."""

    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class ModelRow:
    """A model in a table; `note` is shown in small type below its name."""

    label: str
    mark: Mark
    cells: tuple[str, ...]
    chosen: bool = False
    note: str = ""


def figure(draw: Callable[[Sequence[T], float], Markup], items: Sequence[T]) -> Figure:
    return Figure(draw(items, charts.WIDE), draw(items, charts.NARROW))


def model_labels(models: Sequence[ModelEntry]) -> dict[str, str]:
    """Title and variant of each model, and its id where two models would have equal labels."""
    names = {m.id: m.title if m.variant in m.title else f"{m.title}, {m.variant}" for m in models}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}


def mark_of(record: Record, role: str) -> Mark:
    """The mark of a role's networks."""
    entry = record.roles[role]
    return Mark(entry.shape, entry.colour)


def span(low: float, high: float, sign: str = "") -> str:
    """An interval in percent, or with sign="+" of differences: "96.5 to 97.9". It is never broken into lines."""
    return f"{_bound(low, sign)}\u00a0to\u00a0{_bound(high, sign)}"


def _bound(share: float, sign: str) -> str:
    text = f"{share * 100:{sign}.1f}"
    return "0.0" if float(text) == 0.0 else text.replace("-", "−")
