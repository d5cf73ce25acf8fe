"""variational against the normal distribution."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import normal

from edgekd.distillation.methods.fitnets import fitnets
from edgekd.distillation.methods.variational import Variational, variational


def test_variational_by_hand():
    # Channels with σ² = 1 and e, differences 2 and 0: ½ (4 + 0) and ½ (0 + 1), their mean.
    variance = torch.tensor([1.0, math.e])
    loss = variational(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 1.0]]), variance=variance)
    assert loss.item() == pytest.approx((2.0 + 0.5) / 2)


def test_variational_is_the_negative_log_density_of_a_normal_distribution():
    student, teacher, variance = normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1), normal(2, seed=2).exp()
    density = torch.distributions.Normal(student, variance.sqrt().view(1, 2, 1, 1))
    expected = -density.log_prob(teacher).mean() - 0.5 * math.log(2 * math.pi)
    assert variational(student, teacher, variance=variance).item() == pytest.approx(expected.item(), rel=1e-12)


def test_variational_refuses_other_channels():
    with pytest.raises(ValueError, match=r"one variance per channel, not \(3,\) on 2"):
        variational(torch.zeros(1, 2), torch.zeros(1, 2), variance=torch.ones(3))
    with pytest.raises(ValueError, match="not 2 of the student and 3 of the teacher; use Variational"):
        variational(torch.zeros(1, 2), torch.zeros(1, 3))


def test_variational_without_a_variance_is_half_the_squared_difference():
    student, teacher = normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1)
    expected = 0.5 * fitnets(student, teacher).item()
    assert variational(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_the_variance_starts_at_five_and_learns_each_channels_own():
    adapter = Variational((4,), (3,))
    torch.testing.assert_close(adapter.variance, torch.full((3,), 5.0))
    spread = torch.tensor([0.5, 1.0, 2.0])
    teacher = spread * normal(4000, 3).float()
    optimiser = torch.optim.Adam(adapter.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        adapter(torch.zeros(4000, 4), teacher).backward()
        optimiser.step()
    torch.testing.assert_close(adapter.variance, teacher.var(0), rtol=0.03, atol=0.0)


def test_gradients_of_the_prediction_and_of_the_variance():
    student, teacher = normal(2, 2, 3, 4).requires_grad_(), normal(2, 2, 3, 4, seed=1)
    variance = normal(2, seed=2).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, v: variational(f, teacher, variance=v), (student, variance))
