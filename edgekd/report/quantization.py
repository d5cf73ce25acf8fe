"""The report's part on which operations int8 costs most, and which stay in float for it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgekd import units
from edgekd.report.pruning_charts import Column, Words, in_columns
from edgekd.report.record import OperationSensitivity, Quantization
from edgekd.report.rows import Figure, figure
from edgekd.wording import counted

_UNIT = "% of error in the answers"


def sensitivity(record: Quantization | None) -> Figure | None:
    """A chart of what int8 costs at each operation; None where it was not measured."""
    if record is None or record.mixed is None or not record.mixed.sensitivity:
        return None
    return figure(operations, record.mixed.sensitivity)


def searched(record: Quantization) -> list[tuple[str, str]]:
    """What the search for operations that have to stay in float found, as facts."""
    mixed = record.mixed
    if mixed is None:
        return []
    loss = f"{100 * mixed.before.value:.1f} points of {mixed.measure} on {mixed.images:,} validation images"
    if not mixed.kept:
        return [("Lost by int8", f"{loss}, which may be chance: nothing stays in float for it")]
    after = f"with {counted(len(mixed.kept), 'operation')} in float it {units.lost(mixed.after.value)}"
    allowed = f"{100 * mixed.allowed:.1f}"
    goal = f"; it may lose at most {allowed}" if mixed.met else f", more than the {allowed} that it may lose"
    return [("Lost by int8", f"{loss}, {after}{goal}")]


def operations(each: Sequence[OperationSensitivity], width: float) -> Markup:
    """One column per operation, in the network's order."""
    drawn = [Column(f"{one.name}: {100 * one.error:.3g} {_UNIT}", (100 * one.error,), ("bar",)) for one in each]
    worst = max(each, key=lambda one: one.error)
    description = f"{counted(len(each), 'operation')}; {worst.name} costs the most: {100 * worst.error:.3g} {_UNIT}"
    words = Words("What int8 costs at each operation alone", description, _UNIT, "operations")
    return in_columns(drawn, max(0.1, 100 * worst.error), width, words, ",.3g")
