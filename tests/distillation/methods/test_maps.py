"""flow, review and taylor against NumPy loops in float64, and what they have in common."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.methods.flow import Flow, flow
from edgekd.distillation.methods.review import Review, review
from edgekd.distillation.methods.taylor import Taylor, taylor

STUDENT = [(3, 6, 10), (4, 3, 5), (5, 1, 2)]
TEACHER = [(4, 8, 8), (4, 4, 4), (6, 2, 2)]
CLASSES = [Flow, Review, Taylor]


def _maps(shapes: list[tuple[int, ...]], *, batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def _pool(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Adaptive averages, by loops: position i covers floor(i n / m) to ceil((i + 1) n / m)."""
    out = np.zeros((*x.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            rows = slice(i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height))
            columns = slice(j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def _numpy_flow(students: list[Tensor], teachers: list[Tensor]) -> float:
    total = 0.0
    for depth in range(len(students) - 1):
        grams = []
        for maps in (students, teachers):
            a, b = (m.detach().numpy() for m in maps[depth : depth + 2])
            size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
            grams.append(np.einsum("bihw,bjhw->bij", _pool(a, *size), _pool(b, *size)) / (size[0] * size[1]))
        total += np.mean((grams[0] - grams[1]) ** 2)
    return total


def _numpy_review(students: list[Tensor], teachers: list[Tensor]) -> float:
    total = 0.0
    for s, t in zip((m.detach().numpy() for m in students), (m.numpy() for m in teachers), strict=True):
        height, width = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
        s, t = _pool(s, height, width), _pool(t, height, width)
        terms, weights = [np.mean((s - t) ** 2)], [1.0]
        for level in (4, 2, 1):
            if level < height or level < width:
                size = min(level, height), min(level, width)
                terms.append(np.mean((_pool(s, *size) - _pool(t, *size)) ** 2))
                weights.append(weights[-1] / 2)
        total += np.dot(terms, weights) / sum(weights)
    return total


def _gradient_is_right(function, students: list[Tensor], oracle) -> None:
    """Against central differences of the oracle, along random directions."""
    students = [s.requires_grad_() for s in students]
    gradients = torch.autograd.grad(function(students), students)
    for seed in (1, 2):
        steps = _maps([tuple(s.shape[1:]) for s in students], batch=len(students[0]), seed=seed)
        ends = [
            oracle([s.detach() + sign * 1e-5 * d for s, d in zip(students, steps, strict=True)]) for sign in (1, -1)
        ]
        along = sum((g * d).sum() for g, d in zip(gradients, steps, strict=True))
        assert along.item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("method, oracle", [(flow, _numpy_flow), (review, _numpy_review)])
def test_values_and_gradients_against_numpy(method, oracle):
    students = _maps([(3, 6, 10), (4, 3, 5), (5, 1, 2)])
    teachers = _maps([(3, 9, 8), (4, 4, 4), (5, 2, 2)], seed=9)
    assert method(students, teachers).item() == pytest.approx(oracle(students, teachers), rel=1e-12)
    _gradient_is_right(lambda s: method(s, teachers), students, lambda s: oracle(s, teachers))


@pytest.mark.parametrize("method", [flow, review])
def test_zero_at_equality(method):
    maps = _maps(STUDENT)
    assert method(maps, [m.clone() for m in maps]).item() == 0.0
    assert taylor(maps[0], maps[0], penalty=0.0).item() == 0.0


def test_flow_adapts_only_where_channels_differ_and_review_narrows_to_its_width():
    assert [type(layer) for layer in Flow(STUDENT, TEACHER).adapters] == [nn.Conv2d, nn.Identity, nn.Conv2d]
    equal = _maps(STUDENT), _maps(STUDENT, seed=1)
    assert Flow(STUDENT, STUDENT)(*equal).item() == flow(*equal).item()
    wide = [(8, 4, 4), (16, 2, 2)]
    widths = [Review(wide, wide, width=width).fusions[0].enter[0].out_channels for width in (4, 512)]
    assert widths == [4, 16]


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_check_and_training_lowers_the_loss(kind):
    torch.manual_seed(0)
    students, teachers = [s.requires_grad_() for s in _maps(STUDENT)], [t.requires_grad_() for t in _maps(TEACHER)]
    method = kind([(2, *shape) for shape in STUDENT], TEACHER).double()
    method.eval()
    assert torch.autograd.gradcheck(lambda *s: method(s, teachers), students)
    method.train()
    optimiser = torch.optim.Adam(method.parameters(), lr=0.01)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    losses = []
    for _ in range(20):
        losses.append(method(students, teachers))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] and all(t.grad is None for t in teachers)
    assert all(not torch.equal(p, before[name]) for name, p in method.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3e3])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", CLASSES)
def test_finite(kind, batch, scale, dtype):
    shapes = [(3, 6, 10), (4, 1, 1)]
    students = [(scale * m).to(dtype).requires_grad_() for m in _maps(shapes, batch=batch)]
    teachers = [(scale * m).to(dtype) for m in _maps(TEACHER[:2], batch=batch)]
    single = [s.detach().float().requires_grad_() for s in students]
    method = kind(shapes, TEACHER[:2])
    loss = copy.deepcopy(method)(students, teachers)
    loss.backward()
    method(single, [t.float() for t in teachers]).backward()
    assert loss.ndim == 0 and loss.dtype == torch.float32 and loss.isfinite()
    for s, exact in zip(students, single, strict=True):
        # A slope can itself be more than the 65504 that float16 holds; in single precision it is finite.
        assert exact.grad.isfinite().all()
        torch.testing.assert_close(s.grad, exact.grad.to(dtype))


def test_what_does_not_fit_is_refused():
    two, three = _maps([(2, 2, 2), (2, 2, 2)]), _maps([(2, 2, 2), (3, 2, 2)])
    for method in (flow, review):
        with pytest.raises(ValueError, match="equal channels, not 3 of the student and 2 of the teacher"):
            method(three, two)
        with pytest.raises(ValueError, match="not 2 of the student and 1 of the teacher"):
            method(two, two[:1])
    for method in (flow, review):
        with pytest.raises(ValueError, match=f"{method.__name__} takes a list of maps"):
            method(two[0], two[0])
    with pytest.raises(ValueError, match="equal channels, not 3 of the student and 2 of the teacher"):
        taylor(three[1], two[1])
    for kind in (Flow, Review):
        with pytest.raises(ValueError, match="not 2 of the student and 3 of the teacher"):
            kind(STUDENT[:2], TEACHER)
    with pytest.raises(ValueError, match="2 or more"):
        Flow(STUDENT[:1], TEACHER[:1])
    for kind in (Flow, Review):
        with pytest.raises(ValueError, match=r"maps \(C, H, W\), not \(7,\)"):
            kind([(3, 2, 2), (7,)], [(3, 2, 2), (7,)])
    with pytest.raises(ValueError, match="at least one tap"):
        Taylor([], TEACHER)
