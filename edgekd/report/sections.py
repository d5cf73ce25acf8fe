"""The report's sections on quantization and TensorRT legality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.bench.turns import Turns
from edgekd.report import figures, quantization
from edgekd.report.headline import difference, single
from edgekd.report.model_record import ModelEntry
from edgekd.report.record import EngineOrder, LegalityEntry, Record
from edgekd.report.rows import Figure, ModelRow, mark_of, span
from edgekd.runtime import processor
from edgekd.stages.scores import ClassPrecision, Score
from edgekd.wording import counted

_MODES = {"qad": "quantization-aware distillation (QAD)", "ptq": "calibration only (PTQ)"}
_LEVELS = ("error", "warning")
_MOST_NODES = 12
_WORST = 12


@dataclass(frozen=True)
class Precision:
    """The bundle's variants, and the quantized network before its training, in one table.

    Attributes:
        reference: the model that differences refer to; empty where no fp32 file ships.
        engines: the engines whose order is in the rows' last cells.
        orders: how the orders were determined, in sentences.
        facts: names and values.
        left: the operations that stay in float, with the reason.
        sensitivity: what int8 costs at each operation; None where it was not looked for.
    """

    reference: str
    engines: tuple[str, ...]
    rows: tuple[ModelRow, ...]
    orders: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]
    sensitivity: Figure | None


@dataclass(frozen=True)
class Verdict:
    text: str
    legal: bool


@dataclass(frozen=True)
class Version:
    """One TensorRT version, with one verdict per file."""

    name: str
    jetpack: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Message:
    """Equal findings; `nodes` lists the first operations that they concern."""

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


@dataclass(frozen=True)
class Classes:
    """The classes of one model's answers.

    Attributes:
        model: its label.
        mean: the mean of the classes' accuracies.
        rows: names, accuracies, their intervals and the numbers of images, the worst first.
        others: how many better ones are not listed.
        confusions: in sentences, the most frequent first.
        columns: the titles of the rows' cells.
        what: the second of them in words, of several classes.
    """

    model: str
    mean: str
    rows: tuple[tuple[str, ...], ...]
    others: int
    confusions: tuple[str, ...]
    columns: tuple[str, ...] = ("Class", "Accuracy", "95 % interval", "Images")
    what: str = "accuracies"


def classes(model: ModelEntry | None, labels: dict[str, str]) -> Classes | None:
    """None for a report of an earlier version, which has no accuracies of classes."""
    if model is None or not model.per_class:
        return None
    precisions = {name: each for name, each in model.per_class.items() if isinstance(each, ClassPrecision)}
    if precisions:
        return _precisions(model, precisions, labels)
    scores = {name: each for name, each in model.per_class.items() if isinstance(each, Score)}
    if model.balanced_accuracy is None:
        return None
    worst = sorted(scores.items(), key=lambda each: each[1].accuracy)
    return Classes(
        labels[model.id],
        figures.percent(model.balanced_accuracy, model.samples),
        tuple(
            (name, figures.percent(each.accuracy), span(*each.interval), f"{each.samples:,}")
            for name, each in worst[:_WORST]
        ),
        max(0, len(worst) - _WORST),
        tuple(f"{each.count:,} × {each.label} taken for {each.answer}" for each in model.confused),
    )


def _precisions(model: ModelEntry, found: dict[str, ClassPrecision], labels: dict[str, str]) -> Classes:
    """With several labels per image."""
    worst = sorted(found.items(), key=lambda each: each[1].average_precision)
    return Classes(
        labels[model.id],
        figures.percent(model.score, model.samples),
        tuple((name, *_precision_cells(each, model.samples)) for name, each in worst[:_WORST]),
        max(0, len(worst) - _WORST),
        (),
        columns=(
            "Class",
            "Average precision",
            "95 % interval",
            "Images",
            "Share of images",
            "Mean probability",
            "Calibration error (ECE)",
        ),
        what="average precisions",
    )


def _precision_cells(each: ClassPrecision, images: int) -> tuple[str, ...]:
    return (
        figures.percent(each.average_precision),
        span(*each.interval),
        f"{each.samples:,}",
        figures.percent(each.samples / images),
        figures.percent(each.probability) if each.probability is not None else "–",
        figures.percent(each.ece) if each.ece is not None else "–",
    )


def precision(record: Record, labels: dict[str, str]) -> Precision | None:
    """None where nothing was quantized."""
    models = [model for model in record.models if model.ships or record.part(model) == "calibrated"]
    if not any(model.precision == "int8" for model in models):
        return None
    reference = next((model for model in models if model.ships and model.precision == "fp32"), None)
    return Precision(
        labels[reference.id] if reference is not None else "",
        tuple(_engine(record, engine) for engine in _engines(record)),
        tuple(_precision_row(record, model, reference, labels) for model in models),
        tuple(_orders(record)),
        tuple(_quantized(record)),
        tuple(record.quantization.left_in_float.items()) if record.quantization is not None else (),
        quantization.sensitivity(record.quantization),
    )


def _precision_row(record: Record, model: ModelEntry, reference: ModelEntry | None, labels: dict[str, str]) -> ModelRow:
    gap = _gap(model, reference) if reference is not None and model is not reference else "–"
    timed = single(record, model)
    cells = (
        figures.percent(model.score, model.samples),
        span(*model.interval),
        gap,
        figures.size(model.size_bytes),
        figures.plain(timed.latency_ms.p50) if timed is not None else "–",
        *(_rank(engine.variants, model) for engine in _engines(record)),
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


def _engines(record: Record) -> list[EngineOrder]:
    """Those for one kind of machine, whose order may be measured, come first."""
    return sorted(record.engines, key=lambda engine: engine.machine is None)


def _engine(record: Record, engine: EngineOrder) -> str:
    if engine.machine is not None:
        return f"{engine.title} {engine.machine.replace('_', '-')}"
    others = any(other.engine == engine.engine and other.machine is not None for other in record.engines)
    return f"{engine.title}, other machines" if others else engine.title


def _orders(record: Record) -> list[str]:
    """How the orders were determined, and what the measured ones rest on."""
    engines: dict[str, list[str]] = {}
    for engine in _engines(record):
        engines.setdefault(engine.reason, []).append(_engine(record, engine))
    reasons = [f"{', '.join(names)}: {reason}." for reason, names in engines.items()]
    return [*reasons, *(_in_turns(engine.turns) for engine in record.engines if engine.turns is not None)]


def _in_turns(turns: Turns) -> str:
    """The latencies in turns, with the middle half of the rounds, and the machine that they are valid for."""
    others = zip(turns.variants[1:], turns.milliseconds[1:], turns.ratios[1:], turns.spread[1:], strict=True)
    times = [
        f"{turns.reference} {figures.milliseconds(turns.milliseconds[0])}",
        *(
            f"{name} {figures.milliseconds(time)} ({ratio:.2f} ± {spread:.2f} times {turns.reference})"
            for name, time, ratio, spread in others
        ),
    ]
    return (
        f"Latencies in turns: {', '.join(times)}. They hold for processors with the same instruction sets for int8: "
        f"{processor.shown(turns.instruction_sets)} ({turns.cpu})."
    )


def _quantized(record: Record) -> list[tuple[str, str]]:
    found = record.quantization
    if found is None:
        return []
    facts = [
        ("Method", _MODES[found.mode]),
        ("Quantized values", f"{found.quantized_values:,} activations, besides the weights"),
        ("Calibrated on", f"{found.calibration_images:,} training images, calibration {found.calibration_set[:12]}"),
        ("Left in float", f"{len(found.left_in_float)} of {counted(found.operations, 'operation')}"),
        *quantization.searched(found),
    ]
    ptq = next((model for model in record.models if record.part(model) == "calibrated"), None)
    trained = [model for model in record.models if record.part(model) == "quantized"]
    qad = next((model for model in trained if ptq is not None and model.variant == ptq.variant), None)
    if ptq is not None and qad is not None:
        facts.append(("QAD against PTQ", f"{_gap(qad, ptq)} points"))
    return facts


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
    counts: Counter[str] = Counter(finding.level for finding in entry.findings)
    findings = [counted(counts[level], level) for level in _LEVELS if counts[level]]
    return Verdict(", ".join(["✓ legal" if entry.legal else "✗ refused", *findings]), entry.legal)


def _messages(entries: Sequence[LegalityEntry], labels: dict[str, str]) -> tuple[Message, ...]:
    """Findings with equal text, joined: their operations, files and versions."""
    found: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = {}
    for entry in entries:
        for finding in entry.findings:
            places = found.setdefault((finding.level, finding.message), {})
            places.setdefault((entry.model, finding.node), []).append(entry.version)
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
    return Message(level, text, counted(count, word), where, ", ".join(nodes[:_MOST_NODES]) + more)


def _notes(entries: Sequence[LegalityEntry]) -> tuple[str, ...]:
    """The sources of the verdicts, each with its versions."""
    versions: dict[str, dict[str, None]] = {}
    for entry in entries:
        versions.setdefault(entry.note, {})[entry.version] = None
    return tuple(f"{', '.join(names)}: {note}." for note, names in versions.items() if note)
