"""Which variants are accurate enough to be an engine's first: by the recipe's budget, else by their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd import units
from edgekd.export.model_id import ModelId
from edgekd.runtime.comparison import difference
from edgekd.runtime.statistics import score_of
from edgekd.store.artifacts import Json

# Differences of fractions are not exact in binary: 0.97 - 0.96 is above 0.01.
_ROUNDING = 1e-9
_CERTAIN = "a score within the uncertainty of the best one's"


@dataclass(frozen=True)
class AccuracyBudget:
    """The recipe's budget of accuracy.

    Attributes:
        limit: the largest loss of test accuracy or mAP against `reference`, a fraction; where that is None, the
            smallest fraction of images that is answered as in fp32.
    """

    limit: float
    reference: ModelId | None = None


@dataclass(frozen=True)
class Accurate:
    """The variants that may come first, and the rule in words, as in "may be the default: …"."""

    variants: frozenset[str]
    rule: str


def accurate(rows: Mapping[str, Json], budget: AccuracyBudget | None, reference: Json | None) -> Accurate:
    """The variants that may come first; at least one, where there is any.

    Args:
        rows: the evaluation's row of each variant.
        budget: the recipe's; None: variants that are not certainly less accurate than the best one may.
        reference: the evaluation's row of what the budget compares with; None: it compares with nothing, or its
            export was left out.
    """
    best = max(rows.values(), key=score_of, default=None)
    uncertain = frozenset(name for name, row in rows.items() if best and difference(row, best).high >= 0.0)
    if budget is None or (budget.reference is not None and reference is None):
        return Accurate(uncertain, _CERTAIN)
    if reference is None:
        limit = f"at least {budget.limit:.4g} of the answers as in fp32 (budget.agreement)"
        kept = frozenset(name for name, row in rows.items() if score_of(row) >= budget.limit - _ROUNDING)
    else:
        loss = units.points(-budget.limit).removeprefix("−")
        limit = f"at most {loss} lost against {budget.reference} (budget.accuracy_drop)"
        least = score_of(reference) - budget.limit - _ROUNDING
        kept = frozenset(name for name, row in rows.items() if score_of(row) >= least)
    if not kept:
        return Accurate(uncertain, f"{_CERTAIN}, because no variant keeps to {limit}")
    return Accurate(kept, limit)
