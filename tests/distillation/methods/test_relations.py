"""Losses on the relations between samples: values and gradients against loops, and what stays finite."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from by_hand import angle_loss, cosine, normal, smooth_l1
from torch import Tensor

from edgekd.distillation.methods.correlation import correlation
from edgekd.distillation.methods.pkt import pkt
from edgekd.distillation.methods.relational import relational
from edgekd.distillation.methods.similarity import similarity

RELATIONS = [similarity, relational, pkt, correlation]


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    return normal(6, 5), normal(6, 8, seed=1)


def _distance_loss(student: np.ndarray, teacher: np.ndarray) -> float:
    count, found = len(student), []
    for rows in (student, teacher):
        distances = np.array([[math.dist(a, b) for b in rows] for a in rows])
        found.append(distances / (distances.sum() / (count * (count - 1))))
    return sum(map(smooth_l1, found[0].ravel(), found[1].ravel())) / count**2


def _pkt(student: np.ndarray, teacher: np.ndarray) -> float:
    p, q = (np.array([[(1 + cosine(a, b)) / 2 for b in f] for a in f]) for f in (teacher, student))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return (p * np.log(p / q)).sum() / len(p)


def _correlation(student: np.ndarray, teacher: np.ndarray) -> float:
    total = 0.0
    for i, j in itertools.product(range(len(student)), repeat=2):
        s, t = (0.8 * cosine(f[i], f[j]) for f in (student, teacher))
        total += (math.exp(-0.8) * (s + s * s / 2 - t - t * t / 2)) ** 2
    return total / len(student) ** 2


def _similarity(student: np.ndarray, teacher: np.ndarray) -> float:
    grams = [np.array([[(a * b).sum() for b in f] for a in f]) for f in (student, teacher)]
    g_s, g_t = (np.array([row / math.sqrt(row @ row) for row in gram]) for gram in grams)
    return np.linalg.norm(g_t - g_s) ** 2 / len(student) ** 2


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (similarity, _similarity),
        (partial(relational, distance_weight=1.0, angle_weight=0.0), _distance_loss),
        (partial(relational, distance_weight=0.0, angle_weight=1.0), angle_loss),
        (relational, lambda s, t: 25 * _distance_loss(s, t) + 50 * angle_loss(s, t)),
        (pkt, _pkt),
        (correlation, _correlation),
    ],
)
def test_against_loops(features, function, expected):
    assert function(*features).item() == pytest.approx(expected(*(f.numpy() for f in features)), rel=1e-11)


def test_similarity_keeps_positions_and_the_others_average_over_them():
    student, teacher = normal(4, 3, 2, 5), normal(4, 6, 4, 3, seed=1)
    arrays = student.numpy(), teacher.numpy()
    assert similarity(student, teacher).item() == pytest.approx(_similarity(*arrays), rel=1e-11)
    assert pkt(student, teacher).item() == pytest.approx(_pkt(*(f.mean((2, 3)) for f in arrays)), rel=1e-11)


@pytest.mark.parametrize("function", RELATIONS)
def test_zero_at_equality_and_positive_elsewhere(features, function):
    student, teacher = features
    assert function(student, 3.0 * student).item() == pytest.approx(0.0, abs=1e-14)
    assert function(student, teacher).item() > 1e-3


@pytest.mark.parametrize("function", RELATIONS)
def test_the_order_of_the_batch_and_the_scale_of_a_network_do_not_matter(features, function):
    student, teacher = features
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    expected = pytest.approx(function(student, teacher).item(), rel=1e-11)
    assert function(student[order], teacher[order]).item() == expected
    assert function(1e-3 * student, 1e3 * teacher).item() == expected
    assert function(student[order], teacher).item() != expected


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 3, 2)])
@pytest.mark.parametrize("function", RELATIONS)
def test_gradients(function, shape):
    student, teacher = normal(*shape).requires_grad_(), normal(*shape, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda feature: function(feature, teacher.detach()), (student,))
    function(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("function", RELATIONS)
def test_one_sample_has_no_relations(function):
    student = torch.randn(1, 5, requires_grad=True)
    loss = function(student, torch.randn(1, 3))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-7)
    torch.testing.assert_close(student.grad, torch.zeros(1, 5), rtol=0.0, atol=1e-6)


def _opposite(dtype: torch.dtype) -> Tensor:
    return torch.tensor([[1.0, 2.0], [-1.0, -2.0], [1.0, 2.0], [0.0, 0.0]], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("function", RELATIONS)
def test_finite_where_public_code_is_not(function, dtype):
    usual = normal(4, 6).to(dtype)
    zeros, alike = torch.zeros(4, 6, dtype=dtype), usual[:1].expand(4, 6)
    for student, teacher in itertools.product(
        (usual, 1e4 * usual, 1e-4 * usual, zeros, alike, _opposite(dtype)), repeat=2
    ):
        student = student.clone().requires_grad_()
        loss = function(student, teacher)
        loss.backward()
        assert loss.ndim == 0 and loss.dtype == torch.float32 and loss.isfinite()
        assert student.grad.isfinite().all()
