"""What fitnets, attention and variational have in common: gradients, adapters, and what must stay finite."""

from __future__ import annotations

import pytest
import torch
from by_hand import normal

from edgekd.distillation.methods.attention import attention
from edgekd.distillation.methods.fitnets import Fitnets, fitnets
from edgekd.distillation.methods.variational import Variational

ADAPTERS = [Fitnets, Variational]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("student", "teacher"),
    [((3, 8, 8), (5, 4, 4)), ((3, 2, 7), (5, 3, 5)), ((6,), (4,)), ((3, 4, 4), (5,)), ((6,), (5, 3, 2))],
)
def test_adapters_fit_maps_and_vectors_and_learn(adapter, student, teacher):
    torch.manual_seed(0)
    loss = adapter((2, *student), teacher)
    features = torch.randn(2, *student), torch.randn(2, *teacher, requires_grad=True)
    before = [p.detach().clone() for p in loss.parameters()]
    optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
    first = loss(*features)
    first.backward()
    optimiser.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, loss.parameters(), strict=True))
    assert loss(*features) < first
    assert features[1].grad is None


@pytest.mark.parametrize("function", [fitnets, attention, Fitnets((2, 3, 4), (2, 3, 4)).double()])
def test_gradients(function):
    student, teacher = normal(2, 2, 3, 4).requires_grad_(), normal(2, 2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda feature: function(feature, teacher.detach()), (student,))
    function(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("function", [attention, Fitnets((3, 5, 2), (3, 5, 2)), Variational((3, 5, 2), (3, 5, 2))])
def test_finite_where_public_code_is_not(function, scale, dtype):
    student, teacher = ((scale * normal(1, 3, 5, 2, seed=seed)).to(dtype) for seed in (1, 2))
    student.requires_grad_()
    loss = function(student, teacher)
    loss.backward()
    assert loss.ndim == 0 and loss.dtype == torch.float32 and loss.isfinite()
    assert student.grad.isfinite().all()
