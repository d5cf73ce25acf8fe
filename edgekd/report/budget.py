"""Judges a run's record by its recipe's budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekd.recipe.budget_settings import BoundName, BudgetSettings
from edgekd.report.headline import chosen, difference, single, teacher_of
from edgekd.report.model_record import ModelEntry
from edgekd.report.record import Record
from edgekd.report.verdict import Bound, Nearest, Verdict
from edgekd.stages.distill import STUDENT

# Differences of fractions are not exact in binary: 0.97 - 0.96 is above 0.01.
_ROUNDING = 1e-9
_BYTES = 1e6


@dataclass(frozen=True)
class _Figure:
    """What a model has for a bound; `value` is None where it was not measured."""

    value: float | None
    interval: tuple[float, float] | None = None
    against: str | None = None


def judge(budget: BudgetSettings, record: Record, *, teacher: bool) -> Verdict:
    """Whether the variant that the budget names, or else the headline's model, keeps to the budget.

    Args:
        budget: at least one bound.
        record: of the run; it has a model.
        teacher: whether the run has a teacher, which accuracies are then compared with; else with the student in fp32
            before its compression.
    """
    named = [each for each in record.models if each.ships and each.variant == budget.variant]
    model = next(iter(named), None) if budget.variant is not None else chosen(record)
    if model is None:
        return _left_out(budget)
    timed = single(record, model)
    # Only those that the engine runs here can stand in: if one has a latency, they have one.
    others = [
        each
        for each in record.models
        if each.ships and each is not model and not each.problems and (timed is None or single(record, each))
    ]
    limits, measures = budget.limits, _measures(record, teacher)
    bounds = tuple(_bound(name, limit, measures[name], model, others) for name, limit in limits.items())
    met = all(bound.met for bound in bounds) and not model.problems
    return Verdict(
        met=met,
        model=model.id,
        engine=timed.engine if timed is not None else None,
        bounds=bounds,
        problems=model.problems,
        disturbed=timed is not None and bool(timed.flags) and budget.latency_ms is not None,
        within=None if met else _within(limits, measures, others),
    )


def _left_out(budget: BudgetSettings) -> Verdict:
    bounds = [Bound(name=name, limit=limit, value=None, met=False) for name, limit in budget.limits.items()]
    why = f"{budget.variant or 'every file'} was left out of the bundle"
    return Verdict(met=False, model=None, engine=None, bounds=tuple(bounds), problems=(why,))


def _measures(record: Record, teacher: bool) -> dict[BoundName, Callable[[ModelEntry], _Figure]]:
    reference = teacher_of(record) if teacher else next((m for m in record.models if m.role == STUDENT.name), None)

    def latency(model: ModelEntry) -> _Figure:
        timed = single(record, model)
        return _Figure(timed.latency_ms.p50 if timed is not None and not timed.emulated else None)

    def drop(model: ModelEntry) -> _Figure:
        if reference is None:  # its export was left out
            return _Figure(None)
        gap = difference(reference, model)
        return _Figure(gap.value, (gap.low, gap.high), reference.id)

    return {
        "latency_ms": latency,
        "accuracy_drop": drop,
        "agreement": lambda model: _Figure(model.agreement, model.interval),
        "size_mb": lambda model: _Figure(model.size_bytes / _BYTES),
    }


def _bound(
    name: BoundName,
    limit: float,
    measure: Callable[[ModelEntry], _Figure],
    model: ModelEntry,
    others: list[ModelEntry],
) -> Bound:
    figure = measure(model)
    met = _keeps(name, limit, figure.value)
    ends = figure.interval or ()
    return Bound(
        name=name,
        limit=limit,
        value=figure.value,
        interval=figure.interval,
        against=figure.against,
        met=met,
        settled=all(_keeps(name, limit, end) == met for end in ends),
        nearest=None if met else _nearest(name, figure.value, measure, others),
    )


def _keeps(name: BoundName, limit: float, value: float | None) -> bool:
    return value is not None and _cost(name, value) <= _cost(name, limit) + _ROUNDING


def _cost(name: BoundName, value: float) -> float:
    """Lower is better: an agreement is the only figure of which more is wanted."""
    return -value if name == "agreement" else value


def _nearest(
    name: BoundName, value: float | None, measure: Callable[[ModelEntry], _Figure], others: list[ModelEntry]
) -> Nearest | None:
    found = [(other.id, figure) for other in others if (figure := measure(other).value) is not None]
    better = [each for each in found if value is None or _cost(name, each[1]) < _cost(name, value)]
    best = min(better, key=lambda each: _cost(name, each[1]), default=None)
    return Nearest(model=best[0], value=best[1]) if best is not None else None


def _within(
    limits: dict[BoundName, float],
    measures: dict[BoundName, Callable[[ModelEntry], _Figure]],
    others: list[ModelEntry],
) -> str | None:
    """The first other file of the bundle that keeps to every bound."""
    return next(
        (o.id for o in others if all(_keeps(name, limit, measures[name](o).value) for name, limit in limits.items())),
        None,
    )
