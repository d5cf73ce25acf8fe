"""The report's sections on a model's answers: calibration, and the images that it gets most confidently wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report import figures
from edgekd.report.record import Calibration, ModelEntry, Record
from edgekd.report.reliability import Level, reliability
from edgekd.report.rows import Figure, ModelRow, figure, mark_of
from edgekd.report.svg import Mark
from edgekd.runtime.statistics import wilson


@dataclass(frozen=True)
class CalibrationView:
    """One model's reliability diagram, and the calibration of all exported files in a table.

    Attributes:
        model: its label.
        summary: in a sentence.
    """

    model: str
    summary: str
    chart: Figure
    rows: tuple[ModelRow, ...]


@dataclass(frozen=True)
class Shown:
    """A mistake; `image` is a data URI, or empty."""

    name: str
    label: str
    answer: str
    probability: str
    image: str


@dataclass(frozen=True)
class Worst:
    """The images that a model gets most confidently wrong, and its label."""

    model: str
    mistakes: tuple[Shown, ...]


def calibration(record: Record, model: ModelEntry | None, labels: dict[str, str]) -> CalibrationView | None:
    """None where the model has no finite outputs, and for a report of an earlier version."""
    if model is None or model.calibration is None:
        return None
    levels = _levels(model.calibration, mark_of(record, model.role))
    rows = tuple(
        ModelRow(labels[each.id], mark_of(record, each.role), _cells(each.calibration), each is model)
        for each in record.models
        if each.calibration is not None
    )
    return CalibrationView(labels[model.id], _summary(model.calibration), figure(reliability, levels), rows)


def worst(record: Record, model: ModelEntry | None, labels: dict[str, str]) -> Worst | None:
    """None where the model has no mistakes, and for a report of an earlier version."""
    if model is None or not model.worst:
        return None
    mistakes = tuple(
        Shown(each.name, each.label, each.answer, figures.percent(each.probability), record.images.get(each.row, ""))
        for each in model.worst
    )
    return Worst(labels[model.id], mistakes)


def _levels(found: Calibration, mark: Mark) -> Sequence[Level]:
    levels = []
    for number, each in enumerate(found.bins):
        if each.confidence is None or each.accuracy is None:
            continue
        low, high = wilson(round(each.accuracy * each.count), each.count)
        share = each.count / found.samples
        place = (number, len(found.bins))
        levels.append(Level(mark, *place, each.count, share, each.confidence, each.accuracy, low, high))
    return levels


def _cells(found: Calibration) -> tuple[str, ...]:
    gap = figures.points(found.confidence - found.accuracy, found.samples).removesuffix("\u00a0points")
    return (
        figures.percent(found.ece, found.samples),
        figures.percent(found.confidence, found.samples),
        figures.percent(found.accuracy, found.samples),
        gap,
        figures.plain(found.nll),
    )


def _summary(found: Calibration) -> str:
    """By the mean over all images, judged by the accuracy's interval: a network is rarely right on every level."""
    confidence, accuracy = (figures.percent(share, found.samples) for share in (found.confidence, found.accuracy))
    low, high = wilson(round(found.accuracy * found.samples), found.samples)
    if low <= found.confidence <= high:
        verdict = "On average it is as confident as it is right"
    elif found.confidence > high:
        verdict = "It is overconfident"
    else:
        verdict = "It is underconfident"
    return f"{verdict}: its mean confidence is {confidence}, its accuracy {accuracy}."
