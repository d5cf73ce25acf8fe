"""A budget in words: what will be judged, and how it was judged, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.recipe.budget_settings import BoundName
from edgekd.recipe.settings import RecipeSettings
from edgekd.report import figures
from edgekd.report.verdict import Bound, Verdict

_WHAT: Mapping[BoundName, str] = {
    "latency_ms": "median latency of one image",
    "accuracy_drop": "loss of test {measure} against {against}",
    "agreement": "answers as in fp32",
    "size_mb": "size of the file",
}

_UNITS: Mapping[BoundName, tuple[float, str]] = {
    "latency_ms": (1.0, "ms"),
    "accuracy_drop": (100.0, "points"),
    "agreement": (100.0, "%"),
    "size_mb": (1.0, "MB"),
}
_SPACE = "\u00a0"
# What is left of differences of equal numbers.
_NOTHING = 1e-7


@dataclass(frozen=True)
class Row:
    """One bound; `interval` is empty where there is none, `against` where the value is no difference."""

    name: str
    what: str
    against: str
    value: str
    interval: str
    limit: str
    result: str
    met: bool


def planned(recipe: RecipeSettings) -> tuple[str, ...]:
    """What a run will judge, one line per bound, first of which file; none where the recipe has no budget."""
    if recipe.budget is None:
        return ()
    measure = "mAP" if recipe.data.task == "multilabel" else "accuracy"
    against = "the teacher" if recipe.teacher is not None else "the student in fp32 before its compression"
    file = recipe.budget.variant or "the bundle's default for the measured engine"
    return (f"variant: {file}",) + tuple(
        f"{name}: {_WHAT[name].format(measure=measure, against=against)}, {_limit(name, limit)}"
        for name, limit in recipe.budget.limits.items()
    )


def headline(verdict: Verdict, names: Mapping[str, str] | None = None) -> str:
    """For example "Budget missed by quantized-int8-asym in onnxruntime 1.31.1: size_mb"."""
    by = f" by {_named(verdict.model, names)}" if verdict.model is not None else ""
    where = f" in {verdict.engine}" if verdict.engine is not None else ""
    if verdict.met:
        return f"Budget met{by}{where}"
    return f"Budget missed{by}{where}: {verdict.missed}"


def rows(verdict: Verdict, *, measure: str, names: Mapping[str, str] | None = None) -> tuple[Row, ...]:
    """One row per bound.

    Args:
        verdict: of a run.
        measure: "accuracy", "agreement" or "mAP".
        names: of the models, by their id; default: the ids.
    """
    return tuple(_row(bound, measure, names) for bound in verdict.bounds)


def notes(verdict: Verdict, names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What the verdict rests on where it is not plain, and what is nearest, in sentences."""
    problems = "; ".join(verdict.problems)
    name = f"{_named(verdict.model, names)} is not usable: " if verdict.model is not None else ""
    found = [f"{name}{problems}."] if problems else []
    if verdict.model is None:
        return tuple(found)
    found += [
        f"The interval does not settle {bound.name}: the value decides. More test images narrow it."
        for bound in verdict.bounds
        if not bound.settled
    ]
    if verdict.disturbed and any(bound.name == "latency_ms" and not bound.met for bound in verdict.bounds):
        found.append("The latency was measured on a disturbed machine, and may be too high.")
    if verdict.within is not None:
        other = _named(verdict.within, names)
        found.append(f"{other}, in the same bundle, keeps to every bound; budget.variant judges it.")
    else:
        found += [_nearest(bound, names) for bound in verdict.bounds if not bound.met]
    return tuple(found)


def _nearest(bound: Bound, names: Mapping[str, str] | None) -> str:
    if bound.nearest is None:
        return f"No other file of the bundle comes nearer to {bound.name}."
    value = _number(bound.name, bound.nearest.value)
    larger_is_better = bound.name == "agreement"
    if bound.nearest.value == bound.limit or (bound.nearest.value > bound.limit) == larger_is_better:
        return f"{_named(bound.nearest.model, names)}, in the same bundle, keeps to {bound.name} with {value}."
    return f"Nearest to {bound.name} in the bundle: {_named(bound.nearest.model, names)} with {value}."


def message(verdict: Verdict) -> str:
    """Why a budget is missed: each bound with by how much, then the notes."""
    missed = [f"{bound.name}: {_missed(bound)}" for bound in verdict.bounds if not bound.met]
    by = f" by {verdict.model}" if verdict.model is not None else ""
    return "\n  ".join([f"budget missed{by}", *missed, *notes(verdict)])


def _row(bound: Bound, measure: str, names: Mapping[str, str] | None) -> Row:
    against = _named(bound.against, names) if bound.against is not None else ""
    return Row(
        bound.name,
        _WHAT[bound.name].format(measure=measure, against=against or "a model that was left out"),
        against,
        _number(bound.name, bound.value) if bound.value is not None else "not measured",
        _span(bound),
        _limit(bound.name, bound.limit),
        f"{'met' if bound.met else 'missed'}{'' if bound.settled else ', not settled'}",
        bound.met,
    )


def _missed(bound: Bound) -> str:
    if bound.value is None:
        return "was not measured"
    side = "below" if bound.name == "agreement" else "above"
    excess = _number(bound.name, abs(bound.value - bound.limit))
    span = f" (95 % interval {_span(bound)})" if bound.interval is not None else ""
    return f"{_number(bound.name, bound.value)}{span}, {excess} {side} {_of(bound.name, bound.limit)}"


def _span(bound: Bound) -> str:
    """The interval with its unit once: "23.1 to 57.8 points"."""
    if bound.interval is None:
        return ""
    low, high = (_number(bound.name, end) for end in bound.interval)
    return f"{low.partition(_SPACE)[0]} to {high}"


def _limit(name: BoundName, limit: float) -> str:
    return f"{'at least' if name == 'agreement' else 'at most'} {_of(name, limit)}"


def _of(name: BoundName, limit: float) -> str:
    """A limit as the recipe has it, with its unit."""
    factor, unit = _UNITS[name]
    digits = f"{factor * limit:g}"
    return f"{digits}{_SPACE}{'point' if digits == '1' and unit == 'points' else unit}"


def _number(name: BoundName, value: float) -> str:
    factor, unit = _UNITS[name]
    scaled = abs(factor * value)
    if scaled < _NOTHING:
        return f"0{_SPACE}{unit}"
    digits = figures.plain(scaled) if scaled >= 0.01 else f"{scaled:.1g}"
    return f"{'−' if value < 0.0 else ''}{digits}{_SPACE}{unit}"


def _named(model: str, names: Mapping[str, str] | None) -> str:
    return names[model] if names is not None else model
