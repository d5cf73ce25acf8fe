"""Images whose labels a scheme does not use: no later stage may use them either."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd import plugins
from edgekd.distillation.method import method_named
from edgekd.distillation.objective_settings import on_logits
from edgekd.errors import UsageError
from edgekd.recipe.settings import RecipeSettings, TermSettings

# It needs no labels.
WITHOUT_LABELS = (TermSettings(method="kd"),)


def needing_labels(objective: Sequence[TermSettings]) -> list[str]:
    """The losses that need labels; an unknown name is left out here and reported with its line of the recipe."""
    known = plugins.names("method")
    return [term.method for term in objective if term.method in known and method_named(term.method).needs_labels]


def without_labels(objective: Sequence[TermSettings]) -> tuple[TermSettings, ...]:
    """The losses for pruned and quantized students: those on logits that need no label.

    If none of them uses the teacher's outputs it is WITHOUT_LABELS, since the recipe's default needs labels.
    """
    kept = tuple(term for term in on_logits(objective) if not needing_labels([term]))
    return kept if any(method_named(term.method).needs_teacher for term in kept) else WITHOUT_LABELS


def check_later_stages(recipe: RecipeSettings, reason: str) -> None:
    """Refuse losses that need labels in recovery and QAD.

    Args:
        reason: why there are no labels, for the message.

    Raises:
        UsageError: there is such a loss.
    """
    later = {name: objective for name, objective in recipe.objectives.items() if name != "distill"}
    for name, objective in later.items():
        if found := needing_labels(objective):
            raise UsageError(
                f"{', '.join(found)} in {name}.objective needs labels, and {reason}",
                hint="name losses on the teacher's outputs only, or remove the objective",
            )
