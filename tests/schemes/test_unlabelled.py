"""Losses without labels."""

from __future__ import annotations

from edgekd.distillation.objective_settings import inherited
from edgekd.recipe.settings import TermSettings
from edgekd.schemes._unlabelled import without_labels


def test_later_stages_use_outputs_only_if_labels_are_hidden():
    objective = [TermSettings(method="fitnets"), TermSettings(method="dkd"), TermSettings(method="cross_entropy")]
    assert inherited(without_labels(objective)) == (TermSettings(method="kd"),)
    objective = [TermSettings(method="dist", warmup_epochs=1.0), TermSettings(method="nkd")]
    assert inherited(without_labels(objective)) == (TermSettings(method="dist"),)
