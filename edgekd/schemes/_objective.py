"""What schemes make of the recipe's objective."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd import plugins
from edgekd.distillation.method import Method, method_named
from edgekd.errors import UsageError
from edgekd.recipe.settings import RecipeSettings, TermSettings

Objective = tuple[TermSettings, ...]


def said_or(recipe: RecipeSettings, default: Objective) -> Objective:
    """The recipe's objective where it says one; the scheme's own where it leaves it out."""
    return recipe.distill.objective if "objective" in recipe.distill.model_fields_set else default


def check_answers(scheme: str, objective: Objective) -> None:
    """Raises UsageError where no term asks for another network's answers: then nothing is distilled."""
    if not any(method.needs_teacher or method.on_features for method in known(objective)):
        raise UsageError(
            f"{scheme} needs a loss that compares answers",
            found=", ".join(term.method for term in objective),
            hint="add one to distill.objective, e.g. {method: kd}",
        )


def check_on_logits(scheme: str, objective: Objective, *, why: str, where: str = "distill.objective") -> None:
    """Raises UsageError where a term looks at layers."""
    refused = [method.name for method in known(objective) if method.on_features]
    if refused:
        raise UsageError(
            f"{scheme} takes losses on logits only: {why}",
            found=", ".join(refused),
            hint=f"leave these out of {where}",
        )


def check_labels(scheme: str, objective: Objective) -> None:
    """Raises UsageError where every term asks for answers, and some steps have labels alone."""
    if all(method.needs_teacher or method.on_features for method in known(objective)):
        raise UsageError(
            f"{scheme} begins with labels alone, and no loss is on them",
            found=", ".join(term.method for term in objective),
            hint="add {method: cross_entropy} to distill.objective",
        )


def known(objective: Objective) -> Iterator[Method]:
    """The methods of its terms; a name that nobody knows is reported where it stands."""
    names = plugins.names("method")
    return (method_named(term.method) for term in objective if term.method in names)
