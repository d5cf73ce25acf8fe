"""flow, review and taylor against NumPy loops in float64, and where their formulas are thin."""

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
    """Adaptive averages, by loops: place i covers floor(i n / m) to ceil((i + 1) n / m)."""
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


def test_flow_by_hand():
    # G = 1/2 (1*2 + 3*4) = 7 for the student, 0 for the teacher.
    first, second = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 4.0]]]])
    assert flow([first, second], [first * 0, second]).item() == 49.0


@pytest.mark.parametrize("method, oracle", [(flow, _numpy_flow), (review, _numpy_review)])
def test_values_and_gradients_against_numpy(method, oracle):
    students = _maps([(3, 6, 10), (4, 3, 5), (5, 1, 2)])
    teachers = _maps([(3, 9, 8), (4, 4, 4), (5, 2, 2)], seed=9)
    assert method(students, teachers).item() == pytest.approx(oracle(students, teachers), rel=1e-12)
    _gradient_is_right(lambda s: method(s, teachers), students, lambda s: oracle(s, teachers))


def test_flow_does_not_see_where_things_are():
    maps, teachers = _maps([(3, 4, 5), (2, 4, 5)]), _maps([(3, 6, 6), (2, 3, 3)], seed=1)
    places = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    moved = [m.flatten(2)[:, :, places].reshape(m.shape) for m in maps]
    assert flow(moved, teachers).item() == pytest.approx(flow(maps, teachers).item(), rel=1e-12)


def test_review_by_hand():
    # A map of 2x1 with errors 1 and 3: levels 2x1 and 1, (5 + 1/2 * 4) / (3/2).
    student = torch.tensor([[[[1.0], [3.0]]]])
    assert review([student], [torch.zeros_like(student)]).item() == pytest.approx(14 / 3)


def test_taylor_by_hand_and_its_gradient():
    student = torch.tensor([[3.0, 1.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.0, 2.0], [0.0, 2.0]], dtype=torch.float64)
    loss = taylor(student, teacher, penalty=0.1)
    assert loss.item() == pytest.approx(((0.5 * 5 + 0.1 * 10) + 0.5 * 4) / 2)
    (gradient,) = torch.autograd.grad(loss, student)
    np.testing.assert_allclose(gradient, ((student - teacher + 0.2 * student) / 2).detach(), atol=1e-14)


def test_taylor_reads_a_map_by_its_mean_and_sums_over_stages():
    students, teachers = _maps(STUDENT), _maps(TEACHER)
    method = Taylor(STUDENT, TEACHER, penalty=0.2).double()
    target, expected = teachers[-1].numpy().mean((2, 3)), 0.0
    for layer, feature in zip(method.projections, students, strict=True):
        read = feature.numpy().mean((2, 3)) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        expected += sum(0.5 * np.sum((read[b] - target[b]) ** 2) + 0.2 * np.sum(read[b] ** 2) for b in range(2)) / 2
    assert method(students, teachers).item() == pytest.approx(expected, rel=1e-12)


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


def test_review_mixes_each_map_with_what_is_deeper_by_two_shares_a_place():
    students = _maps(STUDENT)
    method = Review(STUDENT, TEACHER).double().eval()
    carried = method.fusions[2](students[2], None, (1, 2))[1]
    made, mixed = method.fusions[1](students[1], carried, (3, 5))
    assert made.shape == (2, 4, 3, 5)
    layers = method.fusions[1]
    own, deep = layers.enter(students[1]).detach().numpy(), carried.detach().numpy()
    weight, bias = layers.attention[0].weight.detach().numpy()[:, :, 0, 0], layers.attention[0].bias.detach().numpy()
    for i in range(3):
        for j in range(5):
            # The deeper map is 1x2: its nearest place.
            x, y = own[:, :, i, j], deep[:, :, 0, j * 2 // 5]
            shares = 1 / (1 + np.exp(-(np.concatenate([x, y], 1) @ weight.T + bias)))
            np.testing.assert_allclose(mixed[:, :, i, j].detach(), x * shares[:, :1] + y * shares[:, 1:], rtol=1e-10)


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


def test_flow_keeps_single_precision_under_autocast():
    students, teachers = ([m.float() for m in _maps([(3, 4, 4), (3, 4, 4)], seed=seed)] for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = flow(students, teachers)
    assert inside.item() == flow(students, teachers).item()


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
