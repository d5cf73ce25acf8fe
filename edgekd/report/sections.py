"""The sections for what was done to the student: pruning, quantization, and whether TensorRT can take the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report import charts, figures
from edgekd.report.headline import difference, single
from edgekd.report.record import LegalityEntry, ModelEntry, Pruning, Record
from edgekd.report.rows import Figure, ModelRow, figure, mark_of, span

_MEASURES = {"macs": "MACs", "parameters": "Parameters"}
_MODES = {"qad": "quantization-aware distillation (QAD)", "ptq": "calibration alone (PTQ)"}
_MOST_NODES = 12


@dataclass(frozen=True)
class Precision:
    """The bundle's variants side by side, and the quantized network before training beside them.

    Attributes:
        reference: what the differences are against; empty where no fp32 file ships.
        engines: the columns that hold each engine's order, by rows' last cells.
        orders: what each order rests on, a sentence each.
        facts: names and values.
        left: the operations that stay in float.
    """

    reference: str
    engines: tuple[str, ...]
    rows: tuple[ModelRow, ...]
    orders: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    left: tuple[str, ...]


@dataclass(frozen=True)
class PruningView:
    """`rows`: what was counted, before, after, kept, target; `layers`: name, before, after, kept."""

    rows: tuple[tuple[str, ...], ...]
    summary: str
    chart: Figure | None
    layers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Verdict:
    text: str
    legal: bool


@dataclass(frozen=True)
class Version:
    """One TensorRT version; `verdicts`: one a file."""

    name: str
    jetpack: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Message:
    """Equal findings; `nodes` names the first of the operations that they are about."""

    level: str
    text: str
    count: str
    where: str
    nodes: str


@dataclass(frozen=True)
class Legality:
    files: tuple[str, ...]
    versions: tuple[Version, ...]
    messages: tuple[Message, ...]
    notes: tuple[str, ...]


def precision(record: Record, labels: dict[str, str]) -> Precision | None:
    """None where nothing was quantized."""
    models = [model for model in record.models if model.ships or model.role == "ptq"]
    if not any(model.precision == "int8" for model in models):
        return None
    reference = next((model for model in models if model.ships and model.precision == "fp32"), None)
    return Precision(
        labels[reference.id] if reference is not None else "",
        tuple(_engine(record, name) for name in _engines(record)),
        tuple(_precision_row(record, model, reference, labels) for model in models),
        tuple(_orders(record)),
        tuple(_quantized(record)),
        record.quantization.left_in_float if record.quantization is not None else (),
    )


def _precision_row(record: Record, model: ModelEntry, reference: ModelEntry | None, labels: dict[str, str]) -> ModelRow:
    gap = _gap(model, reference) if reference is not None and model is not reference else "–"
    timed = single(record, model)
    cells = (
        figures.percent(model.accuracy, model.samples),
        span(*model.interval),
        gap,
        figures.size(model.size_bytes),
        figures.plain(timed.latency_ms.p50) if timed is not None else "–",
        *(_rank(record.engines[name], model) for name in _engines(record)),
    )
    return ModelRow(
        labels[model.id], mark_of(record, model.role), cells, note="" if model.ships else "not in the bundle"
    )


def _gap(one: ModelEntry, other: ModelEntry) -> str:
    """Percentage points with their interval: "−0.2 (−1.1 to +0.6)"."""
    gap = difference(one, other)
    points = figures.points(gap.value, one.samples).removesuffix("\u00a0points")
    return f"{points} ({span(gap.low, gap.high, '+')})"


def _rank(order: Sequence[str], model: ModelEntry) -> str:
    if not model.ships or model.variant not in order:
        return "–"
    return figures.ordinal(order.index(model.variant) + 1)


def _engines(record: Record) -> list[str]:
    """Those for one kind of machine first: only their order can be measured."""
    return sorted(record.engines, key=lambda name: "-" not in name)


def _engine(record: Record, name: str) -> str:
    """ "onnxruntime-x86_64" as people say it; the same engine without a machine is for all other machines."""
    engine, _, machine = name.partition("-")
    title = record.engine_titles.get(engine, engine)
    if machine:
        return f"{title} {machine.replace('_', '-')}"
    others = any(other.startswith(f"{engine}-") for other in record.engines)
    return f"{title} elsewhere" if others else title


def _orders(record: Record) -> list[str]:
    """An order is measured where all its files were; only one for a kind of machine can be."""
    variants = {model.variant: model for model in record.models if model.ships}
    measured: list[str] = []
    by_rule: list[str] = []
    for name in _engines(record):
        files = [variants[variant] for variant in record.engines[name] if variant in variants]
        timed = "-" in name and bool(files) and all(_measured(record, model) for model in files)
        (measured if timed else by_rule).append(_engine(record, name))
    said = []
    if measured:
        said.append(f"Order from the latencies and accuracies of this run: {', '.join(measured)}.")
    if by_rule:
        said.append(f"Order by rule, not measured: {', '.join(by_rule)}.")
    return said


def _measured(record: Record, model: ModelEntry) -> bool:
    entry = single(record, model)
    return entry is not None and entry.provenance == "measured"


def _quantized(record: Record) -> list[tuple[str, str]]:
    said = record.quantization
    if said is None:
        return []
    left = len(said.left_in_float)
    facts = [
        ("Made by", _MODES[said.mode]),
        ("Quantized values", f"{said.quantized_values:,} activations, besides the weights"),
        ("Calibrated on", f"{said.calibration_images:,} training images"),
        ("Left in float", f"{left:,} {'operation' if left == 1 else 'operations'}"),
    ]
    alone = next((model for model in record.models if model.role == "ptq"), None)
    trained = [model for model in record.models if model.role == "quantized"]
    same = next((model for model in trained if alone is not None and model.variant == alone.variant), None)
    if alone is not None and same is not None:
        facts.append(("QAD against PTQ", f"{_gap(same, alone)} points"))
    return facts


def pruning(said: Pruning) -> PruningView:
    rows = tuple(_counted(said, key) for key in _MEASURES if key in said.before and key in said.after)
    narrower = sum(width.after < width.before for width in said.widths)
    layers = tuple((w.layer, f"{w.before:,}", f"{w.after:,}", _kept(w.before, w.after)) for w in said.widths)
    summary = f"{narrower} of {len(layers)} layers became narrower. Widths are cut to multiples of {said.multiple}."
    bars = [charts.Layer(width.layer, width.before, width.after) for width in said.widths]
    return PruningView(rows, summary, figure(charts.widths, bars) if bars else None, layers)


def _counted(said: Pruning, key: str) -> tuple[str, ...]:
    before, after = said.before[key], said.after[key]
    target = f"≤ {figures.percent(said.target)}" if key == said.measure else "–"
    kept = figures.percent(said.kept) if key == said.measure else _kept(before, after)
    return _MEASURES[key], figures.amount(before), figures.amount(after), kept, target


def _kept(before: int, after: int) -> str:
    return figures.percent(after / before) if before else "–"


def legality(entries: Sequence[LegalityEntry], labels: dict[str, str]) -> Legality | None:
    """None where no graph was checked."""
    if not entries:
        return None
    files = tuple(dict.fromkeys(entry.model for entry in entries))
    found = {(entry.version, entry.model): entry for entry in entries}
    jetpacks = {entry.version: entry.jetpack for entry in entries}
    versions = tuple(
        Version(name, jetpack, tuple(_verdict(found.get((name, file))) for file in files))
        for name, jetpack in jetpacks.items()
    )
    return Legality(tuple(labels[file] for file in files), versions, _messages(entries, labels), _notes(entries))


def _verdict(entry: LegalityEntry | None) -> Verdict:
    if entry is None:
        return Verdict("not checked", True)
    counts = [(len(entry.errors), "error"), (len(entry.warnings), "warning")]
    said = [f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in counts if count]
    return Verdict(", ".join(["✓ legal" if entry.legal else "✗ refused", *said]), entry.legal)


def _messages(entries: Sequence[LegalityEntry], labels: dict[str, str]) -> tuple[Message, ...]:
    """Findings of the same words, once: about which operations, in which files, for which versions."""
    found: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = {}
    for entry in entries:
        for level, messages in (("error", entry.errors), ("warning", entry.warnings)):
            for message in messages:
                node, _, text = message.partition(": ")
                places = found.setdefault((level, text or node), {})
                places.setdefault((entry.model, node if text else ""), []).append(entry.version)
    ranked = sorted(found.items(), key=lambda item: item[0][0])
    return tuple(_message(level, text, places, labels) for (level, text), places in ranked)


def _message(level: str, text: str, places: dict[tuple[str, str], list[str]], labels: dict[str, str]) -> Message:
    nodes = list(dict.fromkeys(node for _, node in places if node))
    versions: dict[str, dict[str, None]] = {}
    for (model, _), names in places.items():
        versions.setdefault(model, {}).update(dict.fromkeys(names))
    where = "; ".join(f"{labels[model]}: {', '.join(names)}" for model, names in versions.items())
    count, word = (len(places), "operation") if nodes else (len(versions), "file")
    more = f" and {len(nodes) - _MOST_NODES} more" if len(nodes) > _MOST_NODES else ""
    counted = f"{count:,} {word}{'' if count == 1 else 's'}"
    return Message(level, text, counted, where, ", ".join(nodes[:_MOST_NODES]) + more)


def _notes(entries: Sequence[LegalityEntry]) -> tuple[str, ...]:
    """What the verdicts rest on, each with its versions."""
    versions: dict[str, dict[str, None]] = {}
    for entry in entries:
        versions.setdefault(entry.note, {})[entry.version] = None
    return tuple(f"{', '.join(names)}: {note}." for note, names in versions.items() if note)
