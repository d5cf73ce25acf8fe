"""The objective of a scheme: the recipe's or its own default, and the checks of its losses."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd import plugins
from edgekd.distillation.method import Method, method_named
from edgekd.errors import UsageError
from edgekd.recipe.settings import RecipeSettings, TermSettings

Objective = tuple[TermSettings, ...]


def objective_or(recipe: RecipeSettings, default: Objective) -> Objective:
    """The recipe's objective if it sets one, otherwise the scheme's own default."""
    return recipe.distill.objective if "objective" in recipe.distill.model_fields_set else default


def check_outputs(scheme: str, objective: Objective) -> None:
    """Refuse an objective without a term on another network's outputs, with which nothing would be distilled.

    Args:
        scheme: its name, for the message.

    Raises:
        UsageError: there is no such term.
    """
    if not any(method.needs_teacher or method.on_features for method in known_methods(objective)):
        raise UsageError(
            f"{scheme} needs a loss that compares outputs of two networks",
            found=", ".join(term.method for term in objective),
            hint="add one to distill.objective, e.g. {method: kd}",
        )


def check_on_logits(scheme: str, objective: Objective, *, why: str, where: str = "distill.objective") -> None:
    """Refuse terms that compare layers.

    Args:
        scheme: its name, for the message.
        why: the reason, for the message.
        where: the key that holds the objective.

    Raises:
        UsageError: there is such a term.
    """
    refused = [method.name for method in known_methods(objective) if method.on_features]
    if refused:
        raise UsageError(
            f"{scheme} takes losses on logits only: {why}",
            found=", ".join(refused),
            hint=f"remove these from {where}",
        )


def check_labels(scheme: str, objective: Objective) -> None:
    """Refuse an objective without a term on labels, for schemes whose first steps have labels only.

    Args:
        scheme: its name, for the message.

    Raises:
        UsageError: every term compares outputs of two networks.
    """
    if all(method.needs_teacher or method.on_features for method in known_methods(objective)):
        raise UsageError(
            f"{scheme} begins with labels only, but no loss uses them",
            found=", ".join(term.method for term in objective),
            hint="add {method: cross_entropy} to distill.objective",
        )


def known_methods(objective: Objective) -> Iterator[Method]:
    """The methods of its terms; an unknown name is left out here and reported with its line of the recipe."""
    names = plugins.names("method")
    return (method_named(term.method) for term in objective if term.method in names)
