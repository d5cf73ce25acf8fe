"""The chain, a card a stage: what it made and what that cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekd.report import figures
from edgekd.report.record import Record, Stage

# Stages that make a network are not named as the role that it has in the report.
_ROLES = {
    "teacher": "teacher",
    "baseline": "baseline",
    "distill": "student",
    "recover": "pruned",
    "quantize": "quantized",
}


@dataclass(frozen=True)
class Card:
    """One step of the chain; `facts` are short lines."""

    title: str
    facts: tuple[str, ...]
    cost: str
    state: str


def card(record: Record, stage: Stage) -> Card:
    facts = tuple(_facts(record, stage.name, stage.title))
    return Card(stage.title, facts, figures.seconds(stage.seconds), stage.state)


def _facts(record: Record, stage: str, title: str) -> list[str]:
    made = next((m for m in record.models if stage == m.id or stage.endswith(f"-{m.id}")), None)
    if made is not None:
        return [figures.percent(made.accuracy, made.samples), figures.size(made.size_bytes)]
    if stage in _OTHERS:
        return _OTHERS[stage](record)
    return _trained(record, _ROLES.get(stage), title)


def _trained(record: Record, role: str | None, title: str) -> list[str]:
    """The last validation accuracy of a training, and its parameters; what a scheme made is known by its title."""
    trainings = [each for each in record.training if (each.role == role if role else each.title == title)]
    epochs = [epoch for training in trainings for epoch in training.epochs]
    found = [epoch.validation_accuracy for epoch in epochs if epoch.validation_accuracy is not None]
    model = next((each for each in record.models if (each.role == role if role else each.title == title)), None)
    facts = [f"validation {figures.percent(found[-1])}"] if found else []
    return [*facts, f"{figures.amount(model.parameters)} parameters"] if model is not None else facts


def _data(record: Record) -> list[str]:
    return [f"{sum(record.data.counts.values()):,} images", f"{len(record.data.classes):,} classes"]


def _prune(record: Record) -> list[str]:
    if record.pruning is None:
        return []
    name = {"macs": "MACs", "parameters": "parameters"}[record.pruning.measure]
    kept = [f"{figures.percent(record.pruning.kept)} of the {name} kept"]
    return [*kept, f"{figures.amount(record.pruning.after['parameters'])} parameters"]


def _calibrate(record: Record) -> list[str]:
    if record.quantization is None:
        return []
    said = record.quantization
    return [f"{said.calibration_images:,} training images", f"{said.quantized_values:,} values quantized"]


def _evaluate(record: Record) -> list[str]:
    return [f"{len(record.models)} files", f"{record.data.counts.get('test', 0):,} test images"]


def _bench(record: Record) -> list[str]:
    return [f"{len(record.measurements)} measurements"]


def _bundle(record: Record) -> list[str]:
    if record.bundle is None:
        return []
    shipped = sum(model.ships for model in record.models)
    variants = f"{shipped} {'variant' if shipped == 1 else 'variants'}"
    return [variants, figures.size(sum(file.size_bytes for file in record.bundle.files))]


_OTHERS: dict[str, Callable[[Record], list[str]]] = {
    "data": _data,
    "prune": _prune,
    "calibrate": _calibrate,
    "evaluate": _evaluate,
    "bench": _bench,
    "bundle": _bundle,
}
