"""simkd, whose projector ships with the student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distillation.methods.simkd import Simkd, projector, simkd


def test_simkd_by_hand_and_its_gradient():
    student = torch.tensor([[1.0, 2.0], [0.0, 4.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    loss = simkd(student, teacher)
    assert loss.item() == pytest.approx(13 / 4) and simkd(student, student).item() == 0.0
    np.testing.assert_allclose(torch.autograd.grad(loss, student)[0], ((student - teacher) / 2).detach())


@pytest.mark.parametrize(
    "student_shape, teacher_shape, inner",
    [((5,), (8,), 4), ((5, 4, 6), (8, 2, 3), 4), ((5, 4, 6), (8,), 4), ((5,), (1,), 1)],
)
def test_the_projector_gives_the_teachers_width_and_learns(student_shape, teacher_shape, inner):
    torch.manual_seed(0)
    method = Simkd((3, *student_shape), teacher_shape)
    student, teacher = torch.randn(3, *student_shape, requires_grad=True), torch.randn(3, *teacher_shape)
    projected = method.projector(student)
    assert projected.shape[:2] == teacher.shape[:2] and projected.ndim == teacher.ndim
    assert next(m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)).num_features == inner
    optimiser = torch.optim.Adam(method.parameters(), lr=0.01)
    before = [p.detach().clone() for p in method.parameters()]
    losses = []
    for _ in range(20):
        losses.append(method(student, teacher))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] and student.grad.isfinite().all()
    assert all(not torch.equal(p, q) for p, q in zip(before, method.parameters(), strict=True))
    method.double().eval()
    student, teacher = student.detach().double().requires_grad_(), teacher.double()
    assert torch.autograd.gradcheck(lambda s: method(s, teacher), (student,))


def test_a_projector_is_a_plain_network_that_reads_its_saved_weights():
    trained = Simkd((5, 4, 4), (8, 4, 4), reduction=4)
    trained(torch.randn(2, 5, 4, 4), torch.randn(2, 8, 4, 4))
    rebuilt = projector((5, 4, 4), (8, 4, 4), reduction=4)
    rebuilt.load_state_dict(trained.projector.state_dict())
    image = torch.randn(1, 5, 3, 7)
    torch.testing.assert_close(rebuilt.eval()(image), trained.projector.eval()(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("student_shape, teacher_shape", [((5,), (8,)), ((5, 1, 1), (8, 2, 3)), ((5, 4, 2), (8,))])
def test_simkd_is_finite_with_one_sample(student_shape, teacher_shape, scale, dtype):
    method = Simkd(student_shape, teacher_shape)
    student = (scale * torch.randn(1, *student_shape)).to(dtype).requires_grad_()
    loss = method(student, torch.randn(1, *teacher_shape).to(dtype))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and student.grad.isfinite().all()
    assert method.projector.training


def test_simkd_refuses_features_that_do_not_fit():
    with pytest.raises(ValueError, match="equal channels, not 1 of the student and 8 of the teacher; use Simkd"):
        simkd(torch.zeros(2, 1), torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"two maps or two vectors, not \(2, 8\) of the student"):
        simkd(torch.zeros(2, 8), torch.zeros(2, 8, 2, 2))
    with pytest.raises(ValueError, match="cannot project"):
        Simkd((5,), (8, 2, 2))
