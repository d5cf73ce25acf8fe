"""The chain, a card a stage: what it made and what that cost."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.report import figures
from edgekd.report.record import Stage


@dataclass(frozen=True)
class Card:
    """One stage; `facts` are short lines."""

    title: str
    facts: tuple[str, ...]
    cost: str
    state: str


def card(stage: Stage) -> Card:
    return Card(stage.title, stage.facts, figures.seconds(stage.seconds), stage.state)
