"""crd against NumPy, and its memory."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.methods import crd as crd_module
from edgekd.distillation.methods.crd import Crd, contrast

SAMPLES = 9


@pytest.fixture
def features() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(4, width, dtype=torch.float64, generator=generator) for width in (5, 7))
    return student, teacher, torch.tensor([8, 0, 3, 5])


def _crd(**settings: object) -> Crd:
    torch.manual_seed(0)
    return Crd((4, 5), (7,), SAMPLES, **{"dimension": 6, "negatives": 20, **settings}).double()


def _numpy_crd(method: Crd, student: Tensor, teacher: Tensor, candidates: Tensor, temperature: float) -> float:
    """As the paper writes it: exponentials, one sample at a time, Z from this batch."""
    anchors = []
    for layer, feature in ((method.student_embed, student), (method.teacher_embed, teacher)):
        rows = feature.detach().numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        anchors.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    total, ratio = 0.0, method._negatives / SAMPLES
    for rows, bank in zip(anchors, (method.teacher_memory.numpy(), method.student_memory.numpy()), strict=True):
        powers = np.array(
            [[np.exp(a @ bank[k] / temperature) for k in ks] for a, ks in zip(rows, candidates, strict=True)]
        )
        p = powers / (powers.mean() * SAMPLES)
        total -= np.log(p[:, 0] / (p[:, 0] + ratio)).mean() + np.log(ratio / (p[:, 1:] + ratio)).sum(1).mean()
    return total


def test_contrast_by_hand():
    # p = 2/Z = 1 for the sample itself, 1/2 for one other; K/N = 1/2: h = 2/3 and 1/2.
    scores = torch.tensor([[2.0, 1.0]], dtype=torch.float64).log()
    loss, _ = contrast(scores, torch.tensor(2.0, dtype=torch.float64).log(), 2)
    assert loss.item() == pytest.approx(-np.log(2 / 3) - np.log(1 / 2))


def test_the_derivative_of_contrast_is_that_of_its_loss():
    scores = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    loss, derivative = contrast(scores, torch.tensor(1.5, dtype=torch.float64), 4)
    torch.testing.assert_close(torch.autograd.grad(loss, scores)[0], derivative, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("whole_until", [0, 16])
@pytest.mark.parametrize("at_once", [1, 2 * SAMPLES, 2 * 21 * 6, 2**24])
def test_crd_against_numpy_gathered_or_whole_in_chunks_of_any_size(features, monkeypatch, at_once, whole_until):
    monkeypatch.setattr(crd_module, "_PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr(crd_module, "_GATHERED_AT_ONCE", at_once)
    monkeypatch.setattr(crd_module, "_WHOLE_UNTIL", whole_until)
    method = _crd(temperature=0.3)
    candidates = method._candidates(features[2])
    monkeypatch.setattr(method, "_candidates", lambda indices: candidates)
    expected = _numpy_crd(method, *features[:2], candidates, 0.3)
    assert method(*features).item() == pytest.approx(expected, rel=1e-12)


def test_crd_gradients_are_right_though_the_memory_moves_before_backward(features, monkeypatch):
    method, (student, teacher, indices) = _crd(), features
    candidates = method._candidates(indices)
    monkeypatch.setattr(method, "_candidates", lambda indices: candidates)
    method(*features)
    still = copy.deepcopy(method).eval()
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: still(s, teacher.detach(), indices), (student,))
    for module in (method, still):
        module(student, teacher, indices).backward()
    torch.testing.assert_close(method.student_embed.weight.grad, still.student_embed.weight.grad)
    assert not torch.equal(method.student_memory, still.student_memory)
    assert method.teacher_embed.weight.grad.abs().sum() > 0 and teacher.grad is None


def test_crd_gathers_from_a_large_memory_only_and_with_the_same_gradients(features, monkeypatch):
    student, teacher, indices = features
    gradients = []
    for whole_until in (16, 1000):
        monkeypatch.setattr(crd_module, "_WHOLE_UNTIL", whole_until)
        torch.manual_seed(0)
        method = Crd((5,), (7,), 50, dimension=6, negatives=2).double()
        candidates = method._candidates(indices)
        assert crd_module._gathers(method.student_memory, candidates) == (whole_until == 16)
        leaf = student.clone().requires_grad_()
        method(leaf, teacher, indices).backward()
        gradients.append([leaf.grad, *(p.grad for p in method.parameters())])
    for gathered, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(gathered, whole, rtol=1e-11, atol=1e-14)


def test_negatives_are_all_others_alike_and_never_the_sample():
    indices = torch.tensor([0, 4, 8])
    candidates = _crd(negatives=8000)._candidates(indices)
    assert torch.equal(candidates[:, 0], indices)
    for row, own in zip(candidates[:, 1:], indices.tolist(), strict=True):
        counts = torch.bincount(row, minlength=SAMPLES)
        assert counts[own] == 0
        # 1000 each, a standard deviation of 30.
        assert (counts[torch.arange(SAMPLES) != own] - 1000).abs().max() < 180


def test_the_memory_is_updated_at_the_batchs_rows_and_only_in_training(features):
    method, (student, teacher, indices) = _crd(momentum=0.25), features
    start = method.student_memory.clone()
    method.eval()(student, teacher, indices)
    assert torch.equal(method.student_memory, start) and method.log_z.isnan().all()
    method.train()(student, teacher, indices)
    rows = nn.functional.normalize(method.student_embed(student))
    expected = start.clone()
    expected[indices] = nn.functional.normalize(0.25 * start[indices] + 0.75 * rows).detach()
    torch.testing.assert_close(method.student_memory, expected)
    for memory in (method.student_memory, method.teacher_memory):
        torch.testing.assert_close(memory.norm(dim=1), torch.ones(SAMPLES, dtype=torch.float64))


def test_z_is_set_once(features):
    method = _crd()
    method(*features)
    first = method.log_z.clone()
    method(features[0] * -1, *features[1:])
    assert first.isfinite().all() and torch.equal(method.log_z, first)


def test_a_saved_state_resumes_exactly(features):
    method = _crd()
    method(*features)
    other = _crd()
    other.student_memory.zero_()
    other.load_state_dict(method.state_dict())
    results = []
    for module in (method, other):
        torch.manual_seed(5)
        results.append([module(*features).item() for _ in range(3)])
    assert results[0] == results[1]
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in method.state_dict().items())


def test_crd_trains_until_each_image_is_nearest_to_itself(features):
    method, (student, teacher, indices) = _crd(negatives=64), features
    optimiser = torch.optim.Adam(method.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        losses.append(method(student, teacher, indices))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal((method.student_embed(student) @ method.teacher_memory[indices].T).argmax(1), torch.arange(4))


@pytest.mark.parametrize("temperature", [0.07, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale, shape", [(0.0, (1, 5)), (1e4, (3, 5)), (1.0, (2, 5, 2, 3))])
def test_crd_is_finite(scale, shape, dtype, temperature):
    student = (scale * torch.randn(shape)).to(dtype).requires_grad_()
    method = Crd(shape, (7,), 2, negatives=11, temperature=temperature)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(student, torch.randn(len(student), 7).to(dtype), torch.zeros(len(student), dtype=torch.int64))
    loss.backward()
    assert loss.ndim == 0 and loss.dtype == torch.float32 and loss.isfinite() and student.grad.isfinite().all()
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_crd_needs_another_sample():
    with pytest.raises(ValueError, match="two or more, not 1"):
        Crd((5,), (7,), 1)
