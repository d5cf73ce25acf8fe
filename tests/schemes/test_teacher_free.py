"""A virtual teacher instead of a network."""

from __future__ import annotations

import pytest
import torch

from edgekd.data.loader import Batch
from edgekd.errors import RecipeError
from edgekd.schemes.teacher_free import VirtualTeacher

SMALL = ("data.limit=64", "data.image_size=8", "distill.batch_size=32", "distill.epochs=3")
FEW = ("data.limit=100", "data.validation=0.45", "distill.epochs=30", "distill.batch_size=25")
SCHEME = "distill.scheme=teacher-free"


def test_the_virtual_teacher_is_right_and_uniform_over_the_other_classes():
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 3]), torch.tensor([0, 1]))
    probabilities = VirtualTeacher(0.9, 5)(batch).logits.softmax(1)
    expected = [[0.9, 0.025, 0.025, 0.025, 0.025], [0.025, 0.025, 0.025, 0.9, 0.025]]
    torch.testing.assert_close(probabilities, torch.tensor(expected))


def test_it_trains_and_leaves_later_stages_the_recipes_objective(stages, distilled):
    """Those learn from a network, for which a temperature of 20 is not meant."""
    made = distilled(stages(*SMALL, SCHEME, teacher=None))
    assert made.objective is None and made.others == {}
    assert set(made.student.metrics["history"][0]["terms"]) == {"kd", "cross_entropy"}
    assert made.student.details.training.objective[0]["temperature"] == 20.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.scheme={name: teacher-free, probability: 1.0}", "probability"),
        ("distill.scheme={name: teacher-free, share: 0.5}", "unknown parameter of teacher-free"),
        ("distill.objective=[{method: cross_entropy}]", "needs a loss that compares outputs"),
        ("distill.objective=[{method: attention}, {method: cross_entropy}]", "takes losses on logits only"),
    ],
)
def test_mistakes_are_reported_once(stages, override, message):
    with pytest.raises(RecipeError, match="1 mistake") as raised:
        stages(SCHEME, override, teacher=None)
    assert message in str(raised.value)


@pytest.mark.slow
def test_it_is_not_worse_than_the_baseline_on_digits(gain):
    """On 100 images it cannot be distinguished from labels only: it is not worse by more than seeds differ."""
    assert gain(*FEW, SCHEME) > -0.015
