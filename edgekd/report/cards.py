"""The chain in the report: one card per stage, with its facts and its duration."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.report import figures
from edgekd.report.record import Stage


@dataclass(frozen=True)
class Card:
    """One stage: its title, short facts, duration and state."""

    title: str
    facts: tuple[str, ...]
    cost: str
    state: str


def card(stage: Stage) -> Card:
    return Card(stage.title, stage.facts, figures.seconds(stage.seconds), stage.state)
