"""The contract that every loss on logits keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_type_hints

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from edgekd import plugins
from edgekd.distillation.method import method_named


def _function(name: str) -> Callable[..., Tensor]:
    return plugins.load("method", name).function


METHODS = [
    name
    for name in plugins.names("method")
    if not method_named(name).on_features and method_named(name).suits("single-label")
]


@pytest.mark.parametrize("method", ["kd", "mse", "dkd"])
@pytest.mark.parametrize("standardize", [False, True])
def test_zero_at_equal_logits(logits, method, standardize):
    student, _, targets = logits
    loss = _function(method)(student, student.clone(), targets, standardize=standardize)
    assert loss.item() == pytest.approx(0.0, abs=1e-14)


def test_the_contract_is_run_on_all_of_them():
    assert set(METHODS) >= {
        *("cross_entropy", "dist", "dkd", "interpolated", "kd", "mse", "nkd", "soft_cross_entropy", "wttm"),
    }


@pytest.mark.parametrize("method", METHODS)
def test_contract_surface(method):
    function = _function(method)
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.name for p in parameters[:3]] == ["student_logits", "teacher_logits", "targets"]
    settings = parameters[3:]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in settings)
    assert settings[-1].name == "standardize" and settings[-1].default is False
    assert function.__doc__ and "Source:" in function.__doc__ or method == "cross_entropy"
    hints = get_type_hints(function, include_extras=True)
    for setting in settings:
        TypeAdapter(hints[setting.name]).validate_python(setting.default, strict=True)


def test_those_that_depend_on_the_tail_of_the_classes_declare_it():
    assert all(method_named(name).whole_row for name in ("interpolated", "mse", "wttm"))
    assert not any(method_named(name).whole_row for name in ("kd", "dkd", "cross_entropy"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("standardize", [False, True])
def test_contract_gradients_are_right_and_none_reaches_the_teacher(logits, method, standardize):
    student, teacher, targets = logits
    function = _function(method)
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: function(z, teacher.detach(), targets, standardize=standardize), (student,)
    )
    function(student, teacher, targets, standardize=standardize).backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("standardize", [False, True])
def test_contract_order_of_samples_and_classes_does_not_matter(logits, method, standardize):
    student, teacher, targets = logits
    function, samples, classes = _function(method), torch.randperm(6), torch.tensor([3, 0, 4, 1, 2])
    moved = [z[samples][:, classes] for z in (student, teacher)]
    expected = function(student, teacher, targets, standardize=standardize).item()
    found = function(*moved, classes.argsort()[targets[samples]], standardize=standardize).item()
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_contract_standardized_losses_see_neither_scale_nor_shift(logits, method):
    student, teacher, targets = logits
    function = _function(method)
    expected = function(student, teacher, targets, standardize=True).item()
    found = function(3 * student + 2, 0.5 * teacher - 7, targets, standardize=True).item()
    assert found == pytest.approx(expected, rel=1e-6)  # The 1e-7 beside the spread.


def _finite(method: str, student: Tensor, teacher: Tensor, standardize: bool) -> None:
    student.requires_grad_()
    targets = torch.arange(len(student)) % student.shape[1]
    loss = _function(method)(student, teacher, targets, standardize=standardize)
    loss.backward()
    assert loss.ndim == 0 and loss.isfinite()
    # The slope of a square, 2 (z_s - z_t), can itself be more than the 65504 that float16 holds.
    overflows = student.dtype is torch.float16 and method in ("mse", "interpolated") and not standardize
    assert student.grad.isfinite().all() or overflows and not student.grad.isnan().any()


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (4, 1), (5, 2), (3, 1000)])
@pytest.mark.parametrize("method", METHODS)
def test_contract_finite_where_public_code_is_not(method, shape, dtype, standardize):
    generator = torch.Generator().manual_seed(1)
    for scale in (0.0, 1.0, 1e4):
        student, teacher = ((scale * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2))
        _finite(method, student, teacher, standardize)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("method", METHODS)
def test_contract_finite_on_rows_that_are_hard(method, dtype, standardize):
    generator = torch.Generator().manual_seed(2)
    plain = torch.randn(4, 6, generator=generator)
    same = plain[:1].repeat(4, 1)
    flat = torch.full((4, 6), 0.1)
    spike, pit = plain.clone(), plain.clone()
    spike[:, 1], pit[:, 2] = 1e4, -1e4
    for student, teacher in ((flat, plain), (same, plain), (spike, pit), (pit, spike), (same, same), (plain, flat)):
        _finite(method, student.to(dtype), teacher.to(dtype), standardize)
