"""What a report's record keeps of one exported file. Units as in edgekd.report.record."""

from __future__ import annotations

from edgekd.stages.scores import Mistake, Score, Scores, WrongLabels
from edgekd.store.records import Count, Span


class ModelEntry(Scores):
    """One exported file and its scores.

    Attributes:
        ships: whether it is in the bundle.
        seconds: how long the stage that made its checkpoint took.
        heads: the scores of additional heads on their own test splits, by name.
        worst: its wrong answers with the highest probabilities, the highest first, or the images with such labels.
    """

    id: str
    role: str
    title: str
    variant: str
    precision: str
    ships: bool
    architecture: str
    size_bytes: Count
    parameters: Count
    macs: Count | None
    seconds: Span | None
    heads: dict[str, Score] = {}
    worst: tuple[Mistake | WrongLabels, ...] = ()
