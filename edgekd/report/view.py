"""From a record to the page's content: texts, rows and charts, without markup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgekd.report import answers, budget_text, charts, environment, figures, sections
from edgekd.report.cards import Card, card
from edgekd.report.headline import baseline_of, chosen, difference, failed, headline, single, teacher_of
from edgekd.report.model_record import ModelEntry
from edgekd.report.pruning import PruningView, pruning
from edgekd.report.record import MeasuredAt, MeasurementEntry, NumericsEntry, Record
from edgekd.report.rows import Figure, ModelRow, figure, mark_of, model_labels, span
from edgekd.report.svg import Mark
from edgekd.report.words import Words, words_of
from edgekd.wording import counted


@dataclass(frozen=True)
class Tile:
    """One key figure; `doubtful` where it cannot be believed, or is no success."""

    name: str
    value: str
    note: str
    doubtful: bool = False


@dataclass(frozen=True)
class NumericsRow:
    label: str
    cells: tuple[str, ...]
    within: bool


@dataclass(frozen=True)
class Place:
    """Everything measured on one device with one engine."""

    name: str
    batch_size: int
    scatter: Figure
    strips: Figure
    rows: tuple[ModelRow, ...]


@dataclass(frozen=True)
class Budget:
    """The budget's bounds, and what the verdict rests on, in sentences."""

    headline: str
    met: bool
    rows: tuple[budget_text.Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """Everything that the template uses."""

    record: Record
    headline: str
    words: Words
    tiles: tuple[Tile, ...]
    budget: Budget | None
    cards: tuple[Card, ...]
    legend: tuple[tuple[Mark, str], ...]
    columns: tuple[str, ...]
    models: tuple[ModelRow, ...]
    unmeasured: tuple[str, ...]
    sizes: Figure | None
    numerics: tuple[NumericsRow, ...]
    places: tuple[Place, ...]
    training: Figure | None
    classes: sections.Classes | None
    calibration: answers.CalibrationView | None
    worst: answers.Worst | None
    precision: sections.Precision | None
    pruning: PruningView | None
    legality: sections.Legality | None
    flags: dict[str, str]
    environment: dict[str, str]
    created: str
    bundle_literal: str


def view(record: Record) -> View:
    labels = model_labels(record.models)
    batches = sorted({entry.batch_size for entry in _first_place(record)})
    shown_model = chosen(record)
    places = dict.fromkeys(entry.place for entry in record.measurements)
    training_curves = _curves(record)
    bars = [charts.Bar(labels[model.id], mark_of(record, model.role), model.size_bytes) for model in record.models]
    return View(
        record=record,
        headline=headline(record),
        words=words_of(record),
        tiles=tuple(_tiles(record, shown_model, labels)) if shown_model is not None else (),
        budget=_budget(record, labels),
        cards=tuple(card(stage) for stage in record.stages),
        legend=tuple(_legend(record)),
        columns=tuple(str(batch) for batch in batches),
        models=tuple(_model_row(record, model, labels, shown_model, batches) for model in record.models),
        unmeasured=tuple(_unmeasured(record, labels)),
        sizes=figure(charts.bars, bars) if bars else None,
        numerics=tuple(_numerics_row(entry, labels) for entry in record.numerics),
        places=tuple(_place(record, place, labels) for place in places),
        training=figure(partial(charts.curves, words=words_of(record)), training_curves) if training_curves else None,
        classes=sections.classes(shown_model, labels),
        calibration=answers.calibration(record, shown_model, labels),
        worst=answers.worst(record, shown_model, labels),
        precision=sections.precision(record, labels),
        pruning=pruning(record.pruning) if record.pruning is not None else None,
        legality=sections.legality(record.legality, labels),
        flags=_flags(record, labels),
        environment=environment.facts(record.environment),
        created=environment.date(record.created),
        bundle_literal=json.dumps(record.bundle.path, ensure_ascii=False) if record.bundle is not None else "",
    )


def _budget(record: Record, labels: dict[str, str]) -> Budget | None:
    verdict = record.budget
    if verdict is None:
        return None
    found = budget_text.rows(verdict, measure=record.data.measure, names=labels)
    return Budget(budget_text.headline(verdict, labels), verdict.met, found, budget_text.notes(verdict, labels))


def _flags(record: Record, labels: dict[str, str]) -> dict[str, str]:
    """The measurements that a flag is about, by flag: "Student, fp32 (batch 1, 8); …"."""
    engines = len({entry.engine for entry in record.measurements})
    found: dict[str, list[MeasurementEntry]] = {}
    for entry in record.measurements:
        for flag in entry.flags:
            found.setdefault(flag, []).append(entry)
    return {flag: _flagged(entries, len(record.measurements), engines > 1, labels) for flag, entries in found.items()}


def _flagged(entries: Sequence[MeasurementEntry], all_of_them: int, engines: bool, labels: dict[str, str]) -> str:
    if len(entries) == all_of_them > 1:
        return f"all {all_of_them:,} measurements"
    batches: dict[str, list[str]] = {}
    for entry in entries:
        name = f"{labels[entry.model]}, {entry.engine}" if engines else labels[entry.model]
        batches.setdefault(name, []).append(str(entry.batch_size))
    return "; ".join(f"{name} (batch {', '.join(sizes)})" for name, sizes in batches.items())


def _legend(record: Record) -> list[tuple[Mark, str]]:
    """The meaning of each mark that is drawn, once: additional networks of a scheme share one mark."""
    measured = {entry.model for entry in record.measurements}
    used = {model.role for model in record.models if model.id in measured}
    marks = [(mark_of(record, role), entry.legend) for role, entry in record.roles.items() if role in used]
    return list(dict.fromkeys(marks))


def _first_place(record: Record) -> list[MeasurementEntry]:
    return [entry for entry in record.measurements if entry.place == record.measurements[0].place]


def _tiles(record: Record, shown_model: ModelEntry, labels: dict[str, str]) -> list[Tile]:
    low, high = shown_model.interval
    interval = f"95 % interval {span(low, high)}, {counted(shown_model.samples, 'test image')}"
    if shown_model.majority is not None:
        interval += f"; always answering {shown_model.majority.label}: {figures.percent(shown_model.majority.share)}"
    if shown_model.chance is not None:
        interval += f"; a random order of the images: {figures.percent(shown_model.chance)}"
    score = figures.percent(shown_model.score, shown_model.samples)
    if shown_model.logit_error is not None:
        interval += f" without labels; error of the logits {figures.percent(shown_model.logit_error)}"
    tiles = [Tile(words_of(record).title, score, interval, doubtful=failed(record, shown_model))]
    if shown_model.micro_f1 is not None and shown_model.macro_f1 is not None:
        note = f"micro; macro {figures.percent(shown_model.macro_f1)}; at thresholds chosen on the validation images"
        tiles.append(Tile("F1", figures.percent(shown_model.micro_f1, shown_model.samples), note))
    entry = single(record, shown_model)
    if entry is not None:
        how = "median" if entry.provenance == "measured" else entry.provenance
        tail = f"{how} on {entry.device}; p99 {figures.milliseconds(entry.latency_ms.p99)}"
        tiles.append(Tile("Latency", figures.milliseconds(entry.latency_ms.p50), tail))
    weights = f"{labels[shown_model.id]}, {figures.amount(shown_model.parameters)} parameters"
    tiles.append(Tile("File", figures.size(shown_model.size_bytes), weights))
    for name, other in (
        ("Against teacher", teacher_of(record)),
        ("Against baseline", baseline_of(record, shown_model)),
    ):
        if other is not None and other is not shown_model:
            gap = difference(shown_model, other)
            interval = f"95 % interval {span(gap.low, gap.high, '+')}"
            tiles.append(Tile(name, figures.points(gap.value, shown_model.samples), interval))
    return tiles


def _model_row(
    record: Record, model: ModelEntry, labels: dict[str, str], shown_model: ModelEntry | None, batches: Sequence[int]
) -> ModelRow:
    low, high = model.interval
    found = {entry.batch_size: entry for entry in _first_place(record) if entry.model == model.id}
    times = found[1].latency_ms if 1 in found else None
    cells = (
        figures.percent(model.score, model.samples),
        span(low, high),
        figures.size(model.size_bytes),
        *((figures.plain(times.p50), figures.plain(times.p90), figures.plain(times.p99)) if times else ("–",) * 3),
        *(figures.plain(found[batch].throughput_per_s) if batch in found else "–" for batch in batches),
        figures.amount(model.parameters),
        figures.amount(model.macs) if model.macs is not None else "–",
        f"{model.samples:,}",
    )
    notes = ["in the bundle"] * model.ships + ["the headline's model"] * (model is shown_model)
    notes += [
        f"{name} {figures.percent(head.accuracy, head.samples)} ({span(*head.interval)})"
        for name, head in model.heads.items()
    ]
    if model.logit_error is not None:
        notes.append(f"error of the logits {figures.percent(model.logit_error)}")
    return ModelRow(labels[model.id], mark_of(record, model.role), cells, model is shown_model, ", ".join(notes))


def _unmeasured(record: Record, labels: dict[str, str]) -> list[str]:
    """The files without a latency where others have one, and why: one sentence per variant."""
    here = {entry.model for entry in _first_place(record)}
    missing = [model for model in record.models if here and model.id not in here]
    sentences = []
    for variant in dict.fromkeys(model.variant for model in missing):
        names = "; ".join(labels[model.id] for model in missing if model.variant == variant)
        reason = record.unmeasured.get(variant)
        sentences.append(f"– Not measured: {names}. {reason}." if reason else f"– Not measured here: {names}.")
    return sentences


def _numerics_row(entry: NumericsEntry, labels: dict[str, str]) -> NumericsRow:
    cells = (
        labels.get(entry.reference, entry.reference),
        f"{figures.scientific(entry.max_difference)} (≤ {figures.scientific(entry.tolerance.difference)})",
        figures.scientific(entry.mean_difference),
        figures.plain(entry.largest_logit),
        f"{figures.percent(entry.agreement)} (≥ {figures.percent(entry.tolerance.agreement)})",
        f"{entry.images:,}" + (f", {entry.near_ties:,} near-ties" if entry.near_ties else ""),
    )
    return NumericsRow(labels[entry.model], cells, entry.within)


def _place(record: Record, place: MeasuredAt, labels: dict[str, str]) -> Place:
    here = [entry for entry in record.measurements if entry.place == place]
    batch = min(entry.batch_size for entry in here)
    shown = [entry for entry in here if entry.batch_size == batch]
    models = {entry.model: record.model(entry.model) for entry in here}
    points = [_point(record, entry, models[entry.model], labels) for entry in shown]
    scatter = figure(partial(charts.scatter, words=words_of(record)), points)
    strips = figure(charts.strips, [_strip(record, entry, models[entry.model], labels) for entry in shown])
    name = f"{place.device}, {place.engine}, {counted(place.threads, 'thread')}{', emulated' if place.emulated else ''}"
    rows = tuple(_measurement_row(record, entry, models[entry.model], labels) for entry in here)
    return Place(name, batch, scatter, strips, rows)


def _point(record: Record, entry: MeasurementEntry, model: ModelEntry, labels: dict[str, str]) -> charts.Point:
    return charts.Point(
        labels[model.id],
        mark_of(record, model.role),
        entry.latency_ms.p50,
        model.score,
        *model.interval,
        provenance=entry.provenance,
    )


def _strip(record: Record, entry: MeasurementEntry, model: ModelEntry, labels: dict[str, str]) -> charts.Strip:
    times, mark = entry.latency_ms, mark_of(record, model.role)
    return charts.Strip(
        labels[model.id], mark, entry.samples_ms, times.p50, times.p90, times.p99, provenance=entry.provenance
    )


def _measurement_row(record: Record, entry: MeasurementEntry, model: ModelEntry, labels: dict[str, str]) -> ModelRow:
    times = entry.latency_ms
    cells = (
        str(entry.batch_size),
        *(figures.plain(value) for value in (times.p50, times.p90, times.p99, times.mean, times.std)),
        figures.plain(entry.throughput_per_s),
        f"{len(entry.samples_ms):,}",
        figures.plain(entry.load_ms),
        figures.plain(entry.first_inference_ms),
        figures.size(entry.peak_bytes) if entry.peak_bytes is not None else "–",
        ", ".join((entry.provenance, *entry.flags)),
    )
    return ModelRow(labels[model.id], mark_of(record, model.role), cells)


def _curves(record: Record) -> list[charts.Curve]:
    found: list[charts.Curve] = []
    for training in record.training:
        points = [(e.epoch, e.score) for e in training.epochs if e.score is not None]
        if points:
            found.append(charts.Curve(training.title, mark_of(record, training.role), tuple(points)))
    return found
