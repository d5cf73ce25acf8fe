"""Why an engine's variants are in their order, in words for bundle.json, model card, report and terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgekd import units
from edgekd.bench.turns import Turns
from edgekd.export.accuracy_budget import Accurate
from edgekd.export.fusion import Fusion
from edgekd.runtime.comparison import difference
from edgekd.store.artifacts import Json
from edgekd.wording import counted


@dataclass(frozen=True)
class Candidates:
    """The variants that an engine runs.

    Attributes:
        rows: the evaluation's row of each.
        sizes: of their graphs, in bytes.
        fusions: what the engine makes of those in int8, as far as it can be looked at.
        converted: variants that the engine converts before it computes, each with the one that it then computes.
    """

    rows: Mapping[str, Json]
    sizes: Mapping[str, int]
    fusions: Mapping[str, Fusion]
    converted: Mapping[str, str]


def measured(order: Sequence[str], found: Candidates, turns: Turns, accurate: Accurate) -> str:
    """Why variants come before or after the one that all were compared with.

    For example "int8-asym wins: 1.9× faster than fp32 (0.42 against 0.80 ms), −0.2 points. In turns, 15 rounds, …", or
    "fp32 is the default; int8-asym loses: …".
    """
    first = turns.reference
    others = [name for name in order if name != first]
    verdicts = [f"{name} {_won(order, name, first)}: {_why(name, found, turns, accurate)}" for name in others]
    how = (
        f"Medians of {turns.rounds} rounds in turns, in {turns.engine} with {counted(turns.threads, 'thread')}, "
        f"{counted(turns.batch_size, 'image')} in a call. May be the default: {accurate.rule}"
    )
    return f"{_default(order, others)}{'; '.join(verdicts)}. {how}"


def by_fusion(order: Sequence[str], found: Candidates, accurate: Accurate, least: float) -> str:
    """Why variants come first or not where nothing was measured; `least`: the share from which on int8 is preferred."""
    verdicts = []
    for name, fusion in found.fusions.items():
        if fusion.share < least:
            why = f"{_left(fusion)}, from which it is taken to be slower"
        elif name not in accurate.variants:
            why = f"not {accurate.rule}"
        else:
            why = (
                f"{fusion.quantized} of {counted(fusion.operators, 'operator')} on quantized values are computed in "
                f"int8, {_conversions(fusion)}"
            )
        first = order[0] == name
        verdicts.append(f"{name} {'is first' if first else 'is not first'}: {why}")
    return f"{_default(order, found.fusions)}{'; '.join(verdicts)}. By what the engine makes of the graph, not measured"


def _default(order: Sequence[str], judged: Collection[str]) -> str:
    """Names the default where no verdict is about it; else the first verdict says that it wins."""
    return "" if order[0] in judged else f"{order[0]} is the default; "


def _won(order: Sequence[str], name: str, other: str) -> str:
    return "wins" if order.index(name) < order.index(other) else "loses"


def _why(name: str, found: Candidates, turns: Turns, accurate: Accurate) -> str:
    first = turns.reference
    if found.converted.get(name) == first:
        return f"the engine computes it as {first} here"
    gap = difference(found.rows[name], found.rows[first])
    lost = units.points(gap.value, found.rows[name]["samples"])
    reasons = [_speed(name, found.fusions.get(name), turns), lost]
    if name not in accurate.variants or first not in accurate.variants:
        reasons.append(f"{name if name not in accurate.variants else first} may not be the default")
    elif turns.as_fast(name, first):
        sizes = " against ".join(units.size(found.sizes[each]) for each in (name, first))
        reasons.append("which decides" if gap.value else f"so that the size decides: {sizes}")
    return ", ".join(reasons)


def _speed(name: str, fusion: Fusion | None, turns: Turns) -> str:
    first = turns.reference
    ratio, _ = turns.ratio(name, first)
    mine, other = turns.time(name), turns.time(first)
    times = f"({units.significant(mine)} against {units.significant(other)} ms)"
    if turns.as_fast(name, first):
        return f"as fast as {first} {times}"
    if ratio < 1.0:
        return f"{units.times(1.0 / ratio)} faster than {first} {times}"
    if fusion is None:
        return f"{units.times(ratio)} slower than {first} {times}"
    return f"{_left(fusion)}, +{units.significant(mine - other)} ms against {first} {times}"


def _left(fusion: Fusion) -> str:
    of = f"{fusion.dequantized} of {counted(fusion.operators, 'operator')} on quantized values"
    return f"{of} are computed in float, {_conversions(fusion)}"


def _conversions(fusion: Fusion) -> str:
    return counted(fusion.conversions, "conversion")
