"""An objective as a recipe sets it: groups of its terms, and those that later stages keep."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd import plugins
from edgekd.distillation.method import method_named
from edgekd.recipe.distill_settings import DEFAULT_OBJECTIVES, TermSettings
from edgekd.recipe.settings import Task
from edgekd.store.artifacts import Json


def inherited(objective: Sequence[TermSettings], task: Task = "single-label") -> tuple[TermSettings, ...]:
    """The losses of a later training: those on logits, since layers may be removed or narrower, without warm-up.

    If none of them uses the teacher, the default objective: otherwise nothing would be distilled.

    Args:
        objective: of the training before.
        task: of the data.
    """
    kept = [term.model_copy(update={"warmup_epochs": 0.0}) for term in on_logits(objective)]
    if not any(method_named(term.method).needs_teacher for term in kept):
        return DEFAULT_OBJECTIVES[task]
    return tuple(kept)


def objective_json(objective: Sequence[TermSettings]) -> list[Json]:
    """An objective for keys and manifests; methods from outside edgekd with a digest of their code."""
    return [term.model_dump(mode="json") | plugins.code_key("method", term.method) for term in objective]


def on_logits(objective: Sequence[TermSettings]) -> tuple[TermSettings, ...]:
    """The terms that do not use layers."""
    return tuple(term for term in objective if not method_named(term.method).on_features)


def changing_student(objective: Sequence[TermSettings]) -> tuple[TermSettings, ...]:
    """The terms that replace the student's last layer before the training."""
    return tuple(term for term in objective if method_named(term.method).changes_student)
