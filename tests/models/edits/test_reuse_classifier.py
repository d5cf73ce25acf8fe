from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits.reuse_classifier import apply, projector


@pytest.mark.parametrize(
    ("student", "teacher", "out"),
    [((4, 5, 6), (8, 2, 2), (8, 5, 6)), ((4, 5, 6), (8,), (8,)), ((4,), (8,), (8,))],
)
def test_a_projector_has_the_teachers_width_and_the_students_places(student, teacher, out):
    network = projector(student, teacher).eval()
    assert network(torch.randn(3, *student)).shape == (3, *out)
    inside = next(layer for layer in network if isinstance(layer, (nn.Conv2d, nn.Linear)))
    assert inside.weight.shape[0] == 4


def test_no_map_is_made_of_a_vector():
    with pytest.raises(ValueError, match="cannot project"):
        projector((4,), (8, 2, 2))


def test_the_last_layer_becomes_projector_and_classifier():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    made = apply(model, {"at": "1", "features": 6, "reduction": 2})
    assert [name for name, _ in made[1].named_children()] == ["projector", "classifier"]
    assert made[1].classifier.weight.shape == (5, 6)
    assert made.eval()(torch.zeros(2, 3, 2, 2)).shape == (2, 5)


@pytest.mark.parametrize(("at", "found"), [("0", "Flatten"), ("9", "nothing")])
def test_only_a_linear_layer_is_replaced(at, found):
    with pytest.raises(ModelError, match=f"cannot replace {at} (?s:.)*found: {found}"):
        apply(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), {"at": at, "features": 6, "reduction": 2})
