"""The report's sections on a model's answers: calibration, and the images that it gets most confidently wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgekd.report import figures
from edgekd.report.model_record import ModelEntry
from edgekd.report.record import Record
from edgekd.report.reliability import LABELS, Level, reliability
from edgekd.report.rows import Figure, ModelRow, figure, mark_of, span
from edgekd.report.svg import Mark
from edgekd.runtime.statistics import wilson
from edgekd.stages.scores import Calibration, LabelCalibration, Mistake, WrongLabels


@dataclass(frozen=True)
class CalibrationView:
    """One model's reliability diagram, and the calibration of all exported files in a table.

    Attributes:
        what: what is judged, in a sentence.
        summary: the model's, in a sentence.
        legend: how to read the chart.
        terms: what the table's columns mean.
        columns: their titles.
    """

    what: str
    summary: str
    chart: Figure
    legend: str
    terms: str
    columns: tuple[str, ...]
    rows: tuple[ModelRow, ...]


@dataclass(frozen=True)
class Fault:
    """One line about a mistake: what happened to which class, and the probability; empty where there is none."""

    what: str
    label: str
    probability: str = ""


@dataclass(frozen=True)
class Shown:
    """A mistake; `image` is a data URI, or empty."""

    name: str
    faults: tuple[Fault, ...]
    image: str


@dataclass(frozen=True)
class Worst:
    """The images that a model gets most confidently wrong, and which these are in words."""

    which: str
    mistakes: tuple[Shown, ...]


def calibration(record: Record, model: ModelEntry | None, labels: dict[str, str]) -> CalibrationView | None:
    """None where the model has no finite outputs, and for a report of an earlier version."""
    if model is None or model.calibration is None:
        return None
    found, name, mark = model.calibration, labels[model.id], mark_of(record, model.role)
    rows = tuple(
        ModelRow(labels[each.id], mark_of(record, each.role), _cells(each.calibration), each is model)
        for each in record.models
        if each.calibration is not None
    )
    if isinstance(found, LabelCalibration):
        chart = figure(partial(reliability, axes=LABELS), _label_levels(found, mark))
        return CalibrationView(_WHAT_LABELS, _label_summary(name, found), chart, *_OF_LABELS, rows)
    chart = figure(reliability, _levels(found, mark))
    return CalibrationView(_WHAT, _summary(name, found), chart, *_OF_ANSWERS, rows)


def worst(record: Record, model: ModelEntry | None, labels: dict[str, str]) -> Worst | None:
    """None where the model has no mistakes, and for a report of an earlier version."""
    if model is None or not model.worst:
        return None
    sets = isinstance(model.worst[0], WrongLabels)
    which = "with the most confident wrong labels of" if sets else "with the most probable wrong answers of"
    mistakes = tuple(Shown(each.name, _faults(each), record.images.get(each.row, "")) for each in model.worst)
    return Worst(f"{which} {labels[model.id]}", mistakes)


_WHAT = "Whether the probability of an answer says how often it is right."
_OF_ANSWERS = (
    "Test images in 15 bins of their confidence, the probability of the answer. Above the dashed line the model is "
    "right more often than it is confident; the bar through a mark is the 95 % interval of the accuracy.",
    "Expected calibration error (ECE): the difference of confidence and accuracy, averaged over the bins; over few "
    "images it is above zero by chance. Negative log-likelihood of the labels (NLL): lower is "
    "better.",
    ("File", "ECE", "Mean confidence", "Accuracy", "Difference, points", "NLL, nats"),
)
_WHAT_LABELS = "Whether the probability of a label says how often images have it."
_OF_LABELS = (
    "All labels of the test images, present or not, in 15 bins of their probability. Above the dashed line images have "
    "the labels more often than the model expects; the bar through a mark is the 95 % interval, as if all labels were "
    "independent.",
    "Expected calibration error (ECE): the difference of probability and share, averaged over the bins; over few "
    "images it is above zero by chance. Brier score: the mean squared difference of probability and label. Both, and "
    "the negative log-likelihood per label (NLL): lower is better. In brackets: the 95 % interval over the images.",
    (
        "File",
        "ECE",
        "Brier score",
        "Mean probability",
        "Labels present",
        "Difference, points",
        "NLL, nats",
    ),
)


def _faults(mistake: Mistake | WrongLabels) -> tuple[Fault, ...]:
    if isinstance(mistake, Mistake):
        answer = Fault("answer", mistake.answer, figures.percent(mistake.probability))
        return answer, Fault("labelled", mistake.label)
    return tuple(
        Fault("given" if each.given else "missed", each.label, figures.percent(each.probability))
        for each in mistake.wrong
    )


def _levels(found: Calibration, mark: Mark) -> Sequence[Level]:
    counted = [(each.count, each.confidence, each.accuracy) for each in found.bins]
    return _drawn(counted, found.samples, mark)


def _label_levels(found: LabelCalibration, mark: Mark) -> Sequence[Level]:
    counted = [(each.count, each.probability, each.frequency) for each in found.bins]
    return _drawn(counted, found.labels, mark)


def _drawn(bins: Sequence[tuple[int, float | None, float | None]], total: int, mark: Mark) -> Sequence[Level]:
    """The levels of (count, confidence, accuracy), without the empty bins."""
    levels = []
    for number, (count, confidence, accuracy) in enumerate(bins):
        if confidence is None or accuracy is None:
            continue
        low, high = wilson(round(accuracy * count), count)
        levels.append(Level(mark, number, len(bins), count, count / total, confidence, accuracy, low, high))
    return levels


def _cells(found: Calibration | LabelCalibration) -> tuple[str, ...]:
    if isinstance(found, LabelCalibration):
        return (
            figures.percent(found.ece),
            figures.plain(found.brier),
            figures.percent(found.probability),
            figures.percent(found.frequency),
            f"{_points(found.difference)} ({span(*found.interval, '+')})",
            figures.plain(found.nll),
        )
    return (
        figures.percent(found.ece, found.samples),
        figures.percent(found.confidence, found.samples),
        figures.percent(found.accuracy, found.samples),
        _points(found.confidence - found.accuracy, found.samples),
        figures.plain(found.nll),
    )


def _points(difference: float, samples: int = 0) -> str:
    return figures.points(difference, samples).removesuffix("\u00a0points")


def _summary(name: str, found: Calibration) -> str:
    """By the mean over all images, judged by the accuracy's interval: a network is rarely right on every level."""
    confidence, accuracy = (figures.percent(share, found.samples) for share in (found.confidence, found.accuracy))
    low, high = wilson(round(found.accuracy * found.samples), found.samples)
    if low <= found.confidence <= high:
        verdict = f"On average {name} is as confident as it is right"
    else:
        verdict = f"{name} is {'overconfident' if found.confidence > high else 'underconfident'}"
    return f"{verdict}: its mean confidence is {confidence}, its accuracy {accuracy}."


def _label_summary(name: str, found: LabelCalibration) -> str:
    """The same for labels, judged by the interval of the difference."""
    expected, there = (figures.percent(share) for share in (found.probability, found.frequency))
    low, high = found.interval
    if low <= 0.0 <= high:
        verdict = f"On average the probabilities of {name} are right"
    else:
        verdict = f"The probabilities of {name} are too {'high' if found.difference > 0 else 'low'}"
    return f"{verdict}: their mean is {expected}, and the images have {there} of the labels."
