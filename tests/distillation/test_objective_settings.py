"""What later stages take over of an objective."""

from __future__ import annotations

from edgekd.distillation.objective_settings import changing_student, inherited, objective_json, on_logits
from edgekd.recipe.settings import DistillSettings, TermSettings


def test_the_losses_that_recovery_keeps():
    kept = [TermSettings(method="dkd"), TermSettings(method="cross_entropy")]
    assert list(inherited([*kept, TermSettings(method="attention")])) == kept
    assert inherited([TermSettings(method="crd"), kept[1]]) == DistillSettings().objective


def test_an_objective_is_split_by_what_its_terms_do():
    kd, simkd, fitnets = (TermSettings(method=name) for name in ("kd", "simkd", "fitnets"))
    assert on_logits([simkd, kd, fitnets]) == (kd,)
    assert changing_student([kd, simkd, fitnets]) == (simkd,)


def test_an_objective_in_a_key_has_the_parameters_that_are_set():
    (term,) = objective_json([TermSettings(method="kd", weight=0.5, temperature=2.0)])
    assert (term["method"], term["weight"], term["temperature"]) == ("kd", 0.5, 2.0)
