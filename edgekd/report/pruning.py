"""The report's section on pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgekd.report import figures, pruning_charts
from edgekd.report.record import Pruning
from edgekd.report.rows import Figure, figure
from edgekd.wording import counted

_MEASURES = {"macs": "MACs", "parameters": "Parameters"}
_IMPORTANCE = {
    "group-norm": "the smallest weights in all layers that they run through",
    "magnitude": "the smallest weights in the layers that compute them",
    "batch-norm": "the smallest batch-norm scales",
    "taylor": "the smallest effect on the loss, to first order",
}
_SHARES = {
    "uniform": "every part lost the same fraction of them",
    "global": "parts lost those that are among the least important of the whole network",
    "sensitivity": "parts lost as many as change the answers equally where each is cut alone",
}


@dataclass(frozen=True)
class PruningView:
    """The section.

    Attributes:
        rows: measure, before, after, kept, target.
        summary, rules: sentences.
        chart: channels by layer.
        layers: name, before, after, kept.
        sensitivity: what cutting each part alone costs; None where it was not needed.
        costs: what the columns of that chart show.
        whole: layers that could not be narrowed, with the reason.
    """

    rows: tuple[tuple[str, ...], ...]
    summary: str
    rules: str
    chart: Figure | None
    layers: tuple[tuple[str, ...], ...]
    sensitivity: Figure | None
    costs: str
    whole: tuple[tuple[str, str], ...]


def pruning(record: Pruning) -> PruningView:
    rows = [_before_and_after(record, key) for key in _MEASURES if key in record.before and key in record.after]
    narrower = sum(width.after < width.before for width in record.widths)
    layers = tuple((w.layer, f"{w.before:,}", f"{w.after:,}", _kept(w.before, w.after)) for w in record.widths)
    have = "has" if narrower == 1 else "have"
    summary = f"{narrower} of {counted(len(layers), 'layer')} {have} fewer channels, in multiples of {record.multiple}."
    bars = [pruning_charts.Layer(width.layer, width.before, width.after) for width in record.widths]
    sensitivity, costs = _sensitivity(record)
    return PruningView(
        tuple([*rows, *_measured(record)]),
        summary,
        f"Channels with {_IMPORTANCE[record.importance]} went first; {_SHARES[record.shares]}.",
        figure(pruning_charts.widths, bars) if bars else None,
        layers,
        sensitivity,
        costs,
        tuple(record.whole.items()),
    )


def _before_and_after(record: Pruning, key: str) -> tuple[str, ...]:
    before, after = record.before[key], record.after[key]
    target = f"≤ {figures.percent(record.target)}" if key == record.measure else "–"
    kept = figures.percent(record.kept) if key == record.measure else _kept(before, after)
    return _MEASURES[key], figures.amount(before), figures.amount(after), kept, target


def _measured(record: Pruning) -> Sequence[tuple[str, ...]]:
    """What the target was measured by, where it is not counted."""
    target, kept = f"≤ {figures.percent(record.target)}", figures.percent(record.kept)
    if record.latency is not None:
        before, after = record.latency.milliseconds
        name = f"Latency in fp32, measured in turns ({record.latency.device})"
        return [(name, figures.milliseconds(before), figures.milliseconds(after), kept, target)]
    return [("Size of the fp32 file", "–", "–", kept, target)] if record.measure == "size" else []


def _kept(before: int, after: int) -> str:
    return figures.percent(after / before) if before else "–"


def _sensitivity(record: Pruning) -> tuple[Figure | None, str]:
    if not record.sensitivity:
        return None, ""
    # Of a network that answers by chance no cut costs accuracy.
    labelled = any(lost > 0.0 for curve in record.sensitivity for lost in curve.lost or ())
    unit = "points of accuracy lost" if labelled else "% of error in the answers"
    parts = [
        pruning_charts.Sensitivity(
            curve.layers[0].removesuffix(".weight"),
            tuple(100.0 * value for value in (curve.lost if labelled and curve.lost is not None else curve.errors)),
        )
        for curve in record.sensitivity
    ]
    drawn = figure(partial(pruning_charts.sensitivities, unit=unit), parts)
    return (
        drawn,
        f"Each part alone, before recovery: {unit} without 25, 50 and 75 % of its channels, the last one pale.",
    )
