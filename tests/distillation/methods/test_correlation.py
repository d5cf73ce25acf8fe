"""correlation's embeddings."""

from __future__ import annotations

import pytest
import torch
from by_hand import normal
from torch import Tensor

from edgekd.distillation.methods.correlation import Correlation, correlation


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    return normal(6, 5), normal(6, 8, seed=1)


@pytest.mark.parametrize(("student", "teacher"), [((3, 4, 5), (7, 2, 2)), ((6,), (300,)), ((6,), (2, 3, 4))])
def test_the_students_embedding_learns_and_the_teachers_stays(student, teacher):
    torch.manual_seed(0)
    loss = Correlation(student, (8, *teacher))
    features = torch.randn(8, *student), torch.randn(8, *teacher, requires_grad=True)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    optimiser = torch.optim.SGD(loss.parameters(), lr=1.0)
    first = loss(*features)
    first.backward()
    optimiser.step()
    changed = {name for name, value in loss.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"embedding.weight", "embedding.bias"} and loss(*features) < first
    assert features[1].grad is None and loss(*(f.half() for f in features)).isfinite()


def test_the_teachers_projection_keeps_what_fits_into_it():
    teacher, loss = normal(8, 100), Correlation((5,), (100,), dimension=128).double()
    assert correlation(teacher @ loss.teacher_embedding.T, teacher).item() == pytest.approx(0.0, abs=1e-12)
