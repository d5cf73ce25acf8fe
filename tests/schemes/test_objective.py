"""What a scheme makes of the recipe's objective."""

from __future__ import annotations

import pytest

from edgekd.errors import UsageError
from edgekd.recipe.settings import TermSettings
from edgekd.schemes._objective import check_labels, check_on_logits, check_outputs, known_methods, objective_or

KD, LABELS, LAYERS = (TermSettings(method=name) for name in ("kd", "cross_entropy", "fitnets"))


def test_a_default_holds_where_the_recipe_has_no_objective(stages):
    written = stages("distill.objective=[{method: mse}]").recipe
    assert objective_or(stages().recipe, (KD,)) == (KD,)
    assert [term.method for term in objective_or(written, (KD,))] == ["mse"]


def test_an_objective_that_distills_nothing_is_refused():
    check_outputs("online", (KD, LABELS)), check_outputs("online", (LAYERS,))
    with pytest.raises(UsageError, match="online needs a loss that compares outputs"):
        check_outputs("online", (LABELS,))


def test_losses_on_layers_are_refused_with_the_reason():
    check_on_logits("online", (KD, LABELS), why="no layers")
    with pytest.raises(UsageError, match=r"on logits only: no layers(?s:.)*fitnets(?s:.)*prune.objective"):
        check_on_logits("online", (KD, LAYERS), why="no layers", where="prune.objective")


def test_an_objective_without_labels_is_refused():
    check_labels("last-epoch", (KD, LABELS))
    with pytest.raises(UsageError, match="begins with labels only"):
        check_labels("last-epoch", (KD, LAYERS))


def test_an_unknown_method_is_left_to_the_check_of_its_name():
    assert [method.name for method in known_methods((KD, TermSettings(method="kdd")))] == ["kd"]
