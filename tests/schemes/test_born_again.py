"""Born-again generations of one model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekd import schemes
from edgekd.errors import RecipeError
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan

SMALL = ("data.limit=64", "data.image_size=8", "distill.batch_size=32", "distill.epochs=3")
SCHEME = ("distill.scheme=born-again", "distill.objective=[{method: kd, temperature: 2}, {method: cross_entropy}]")
FEW = ("data.limit=100", "data.validation=0.45", "distill.epochs=30", "distill.batch_size=25")


def test_born_again_generations_each_learn_from_the_one_before(stages, distilled):
    chain = stages(*SMALL, "distill.scheme={name: born-again, generations: 2}", teacher=None)
    made = distilled(chain)
    first, second = train_stage.baseline(chain, data_stage.data(chain)), made.others["generation1"]
    assert list(made.others) == ["generation1"], "generation 0 is the baseline, and shown as that"
    assert second.details.training.teacher == first.digest
    assert made.student.details.training.teacher == second.digest
    assert [g.manifest.stage.settings["seed"] for g in (first, second, made.student)] == [0, 1000, 2000]
    again = stages(*SMALL, "distill.scheme={name: born-again, generations: 3}", teacher=None)
    distilled(again)
    assert [done.state for done in again.store.log] == ["reused"] * 4 + ["run"]


def test_born_again_takes_losses_on_features(stages, distilled):
    objective = "distill.objective=[{method: attention, weight: 100}, {method: cross_entropy}]"
    made = distilled(stages(*SMALL, "distill.scheme=born-again", objective, teacher=None))
    assert set(made.student.metrics["history"][0]["terms"]) == {"attention", "cross_entropy"}


def test_a_plan_names_the_generations_and_writes_nothing(stages, tmp_path):
    chain = stages("distill.scheme={name: born-again, generations: 2}", teacher=None)
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    schemes.distill(plan, None, data_stage.data(plan))
    assert [stage.name for stage in plan.store.stages] == ["data", "baseline", "generation1", "generation2"]
    assert not (tmp_path / "plan").exists()


def test_without_a_baseline_generation_0_is_shown(stages, distilled):
    overrides = ("distill.scheme={name: born-again, generations: 2}", "distill.baseline=false")
    made = distilled(stages(*SMALL, *overrides, teacher=None))
    assert list(made.others) == ["generation0", "generation1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.scheme={name: born-again, generations: 0}", "generations"),
        ("distill.scheme={name: born-again, share: 0.5}", "unknown parameter of born-again"),
        ("distill.objective=[{method: cross_entropy}]", "needs a loss that compares outputs"),
    ],
)
def test_mistakes_are_reported_once(stages, override, message):
    with pytest.raises(RecipeError, match="1 mistake") as raised:
        stages("distill.scheme=born-again", override, teacher=None)
    assert message in str(raised.value)


@pytest.mark.slow
def test_it_gains_on_digits(gain):
    """On 100 images."""
    assert gain(*FEW, *SCHEME) > 0.0
