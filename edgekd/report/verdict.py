"""Whether a run met its recipe's budget: a part of the record."""

from __future__ import annotations

from edgekd.recipe.budget_settings import BoundName
from edgekd.store.records import Frozen


class Nearest(Frozen):
    """The other file of the bundle with the best value for a bound."""

    model: str
    value: float


class Bound(Frozen):
    """One bound of a budget, and what the judged file has. All values are in the bound's unit.

    Attributes:
        limit: the largest accepted value, of an agreement the smallest.
        value: None where it was not measured: then the bound is missed.
        interval: 95 %, where the value has one.
        against: for a difference the model that the file is compared with.
        met: by the value itself, whatever the interval.
        settled: whether the whole interval is on the value's side of the limit.
        nearest: of a missed bound; None where no other file of the bundle comes nearer.
    """

    name: BoundName
    limit: float
    value: float | None
    interval: tuple[float, float] | None = None
    against: str | None = None
    met: bool
    settled: bool = True
    nearest: Nearest | None = None


class Verdict(Frozen):
    """Whether a file that ships keeps to the budget.

    Attributes:
        met: every bound is met, and nothing is wrong with the file's answers.
        model: the judged file; None where the variant that the budget names was left out of the bundle.
        engine: that its latency was measured in; None where none was measured.
        bounds: in the order of the recipe's settings.
        problems: why its answers cannot be believed: then the budget is missed, whatever the bounds.
        disturbed: whether its latency was measured on a disturbed machine.
        within: another file of the bundle that keeps to a missed budget.
    """

    met: bool
    model: str | None
    engine: str | None
    bounds: tuple[Bound, ...]
    problems: tuple[str, ...] = ()
    disturbed: bool = False
    within: str | None = None

    @property
    def missed(self) -> str:
        """The bounds that are not met, by name; or that the file is not usable, which misses any."""
        return ", ".join(bound.name for bound in self.bounds if not bound.met) or "not usable"

    @property
    def models(self) -> set[str]:
        """All models that it names."""
        others = [self.model, self.within, *(bound.against for bound in self.bounds)]
        nearest = {bound.nearest.model for bound in self.bounds if bound.nearest is not None}
        return {*nearest, *(other for other in others if other is not None)}
