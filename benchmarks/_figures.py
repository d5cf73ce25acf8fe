"""The results of a benchmark, with their goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from _turns import Answer


@dataclass(frozen=True)
class Figure:
    """One measured value; `value` is None if it was not measured, with the reason in `note`."""

    part: str
    what: str
    value: float | None
    unit: str = ""
    goal: str = ""
    met: bool | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def at_most(part: str, what: str, value: float, limit: float, unit: str, note: str = "") -> Figure:
    return Figure(part, what, value, unit, f"≤ {limit:g} {unit}", value <= limit, note)


def at_least(part: str, what: str, value: float, limit: float, unit: str, note: str = "") -> Figure:
    return Figure(part, what, value, unit, f"≥ {limit:g} {unit}", value >= limit, note)


def not_measured(part: str, what: str, why: str) -> Figure:
    return Figure(part, what, None, note=f"not measured: {why}")


def middle(answers: Sequence[Answer], figure: str = "seconds") -> float:
    return float(median(answer[figure] for answer in answers))


def ratios(above: Sequence[Answer], below: Sequence[Answer], figure: str = "seconds") -> list[float]:
    """The ratio of each round, so that a temporary slowdown of the machine affects both sides."""
    return [mine[figure] / theirs[figure] for mine, theirs in zip(above, below, strict=True)]


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} in {len(values)} rounds"


def table(figures: Sequence[Figure]) -> str:
    lines = ["| | figure | | goal | met | |", "|---|---|---|---|---|---|"]
    for found in figures:
        value = "-" if found.value is None else f"{found.value:.4g} {found.unit}".strip()
        met = {True: "yes", False: "NO", None: ""}[found.met]
        lines.append(f"| {found.part} | {found.what} | {value} | {found.goal} | {met} | {found.note} |")
    return "\n".join(lines)
