"""Losses on single features: values and gradients in float64 against NumPy, adapters, and what must stay finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.methods.attention import attention
from edgekd.distillation.methods.fitnets import Fitnets, fitnets
from edgekd.distillation.methods.variational import Variational, variational

ADAPTERS = [Fitnets, Variational]


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _attention_by_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        maps = [(feature**2).sum(0) for feature in (s, t)]
        q_s, q_t = (m / math.sqrt((m**2).sum()) for m in maps)
        total += ((q_s - q_t) ** 2).sum()
    return total / (len(student) * student.shape[2] * student.shape[3])


def test_fitnets_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert fitnets(student, teacher).item() == pytest.approx((1 + 4 + 9) / 4)


def test_fitnets_averages_maps_down_to_the_smaller_height_and_the_smaller_width():
    student, teacher = _normal(2, 3, 4, 2), _normal(2, 3, 2, 6, seed=1)
    small_s = student.numpy().reshape(2, 3, 2, 2, 2).mean(3)
    small_t = teacher.numpy().reshape(2, 3, 2, 2, 3).mean(4)
    assert fitnets(student, teacher).item() == pytest.approx(((small_s - small_t) ** 2).mean(), rel=1e-12)


def test_fitnets_does_not_spread_one_channel_over_many():
    with pytest.raises(ValueError, match="equal channels, not 1 of the student and 3 of the teacher; use Fitnets"):
        fitnets(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4))


def test_fitnets_regressor_against_numpy():
    adapter = Fitnets((3, 4, 5), (2, 7, 4, 5)).double()
    student, teacher = _normal(2, 3, 4, 5), _normal(2, 7, 4, 5, seed=1)
    weight, bias = (p.detach().numpy() for p in adapter.parameters())
    adapted = np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], student.numpy()) + bias[:, None, None]
    assert adapter(student, teacher).item() == pytest.approx(((adapted - teacher.numpy()) ** 2).mean(), rel=1e-12)


def test_attention_by_hand():
    # Squares (9, 16) and (16, 9), of length √337: the difference of the unit vectors is (−7, 7) / √337.
    student, teacher = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), torch.tensor([4.0, 3.0]).view(1, 1, 1, 2)
    assert attention(student, teacher).item() == pytest.approx(49 / 337)


def test_attention_against_loops_on_maps_that_are_not_square():
    student, teacher = _normal(4, 3, 2, 5), _normal(4, 6, 2, 5, seed=1)
    expected = _attention_by_loops(student.numpy(), teacher.numpy())
    assert attention(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_attention_does_not_see_a_samples_scale():
    student, teacher = _normal(4, 3, 4, 4), _normal(4, 3, 4, 4, seed=1)
    scales = torch.tensor([0.1, 2.0, 30.0, 1e-6], dtype=torch.float64).view(4, 1, 1, 1)
    assert attention(scales * student, teacher).item() == pytest.approx(attention(student, teacher).item(), rel=1e-12)
    assert attention(student, scales * student).item() == pytest.approx(0.0, abs=1e-24)


def test_attention_pools_before_it_squares():
    student, teacher = _normal(2, 3, 6, 4), _normal(2, 3, 3, 4, seed=1)
    pooled = student.numpy().reshape(2, 3, 3, 2, 4).mean(3)
    expected = _attention_by_loops(pooled, teacher.numpy())
    assert attention(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_attention_needs_places():
    with pytest.raises(ValueError, match=r"maps \(B, C, H, W\), not \(2, 3\)"):
        attention(torch.zeros(2, 3), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(("student", "teacher"), [((1, 1), (1, 1)), ((4, 4), (1, 1)), ((1, 5), (5, 1))])
def test_attention_of_one_place_is_refused_as_it_is_always_one(student, teacher):
    with pytest.raises(ValueError, match=rf"more than one place, not \({student[0]}, {student[1]}\) of the student"):
        attention(torch.randn(2, 3, *student), torch.randn(2, 3, *teacher))


def test_variational_by_hand():
    # Channels with σ² = 1 and e, differences 2 and 0: ½ (4 + 0) and ½ (0 + 1), their mean.
    variance = torch.tensor([1.0, math.e])
    loss = variational(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 1.0]]), variance=variance)
    assert loss.item() == pytest.approx((2.0 + 0.5) / 2)


def test_variational_is_the_negative_log_density_of_a_normal_distribution():
    student, teacher, variance = _normal(3, 2, 4, 5), _normal(3, 2, 4, 5, seed=1), _normal(2, seed=2).exp()
    normal = torch.distributions.Normal(student, variance.sqrt().view(1, 2, 1, 1))
    expected = -normal.log_prob(teacher).mean() - 0.5 * math.log(2 * math.pi)
    assert variational(student, teacher, variance=variance).item() == pytest.approx(expected.item(), rel=1e-12)


def test_variational_refuses_other_channels():
    with pytest.raises(ValueError, match=r"one variance per channel, not \(3,\) on 2"):
        variational(torch.zeros(1, 2), torch.zeros(1, 2), variance=torch.ones(3))
    with pytest.raises(ValueError, match="not 2 of the student and 3 of the teacher; use Variational"):
        variational(torch.zeros(1, 2), torch.zeros(1, 3))


def test_variational_without_a_variance_is_half_the_squared_difference():
    student, teacher = _normal(3, 2, 4, 5), _normal(3, 2, 4, 5, seed=1)
    expected = 0.5 * fitnets(student, teacher).item()
    assert variational(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_the_variance_starts_at_five_and_learns_each_channels_own():
    adapter = Variational((4,), (3,))
    torch.testing.assert_close(adapter.variance, torch.full((3,), 5.0))
    spread = torch.tensor([0.5, 1.0, 2.0])
    teacher = spread * _normal(4000, 3).float()
    optimiser = torch.optim.Adam(adapter.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        adapter(torch.zeros(4000, 4), teacher).backward()
        optimiser.step()
    torch.testing.assert_close(adapter.variance, teacher.var(0), rtol=0.03, atol=0.0)


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
    student, teacher = _normal(2, 2, 3, 4).requires_grad_(), _normal(2, 2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda feature: function(feature, teacher.detach()), (student,))
    function(student, teacher).backward()
    assert teacher.grad is None


def test_gradients_of_the_prediction_and_of_the_variance():
    student, teacher = _normal(2, 2, 3, 4).requires_grad_(), _normal(2, 2, 3, 4, seed=1)
    variance = _normal(2, seed=2).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, v: variational(f, teacher, variance=v), (student, variance))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("function", [attention, Fitnets((3, 5, 2), (3, 5, 2)), Variational((3, 5, 2), (3, 5, 2))])
def test_finite_where_public_code_is_not(function, scale, dtype):
    student, teacher = ((scale * _normal(1, 3, 5, 2, seed=seed)).to(dtype) for seed in (1, 2))
    student.requires_grad_()
    loss = function(student, teacher)
    loss.backward()
    assert loss.ndim == 0 and loss.dtype == torch.float32 and loss.isfinite()
    assert student.grad.isfinite().all()


def test_an_adapter_takes_whatever_precision_the_networks_compute_in():
    adapter: nn.Module = Fitnets((3, 4, 4), (5, 4, 4))
    features = _normal(2, 3, 4, 4), _normal(2, 5, 4, 4)
    exact = adapter(*features).item()
    assert adapter(*(f.bfloat16() for f in features)).item() == pytest.approx(exact, rel=0.02)
