"""What every loss on features keeps, found by name: a file that is dropped into the folder is tested too."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from edgekd import plugins
from edgekd.distillation.method import method_named
from edgekd.distillation.methods.relational import relational

METHODS = [name for name in plugins.names("method") if method_named(name).on_features]
SAMPLES = 8
Shapes = tuple[list[tuple[int, ...]], list[tuple[int, ...]]]
SQUARE: Shapes = [(3, 4, 4), (4, 2, 2)], [(3, 4, 4), (6, 2, 2)]
UNEVEN: Shapes = [(3, 6, 10), (4, 3, 5)], [(3, 9, 8), (6, 4, 4)]
VECTORS: Shapes = [(5,)], [(7,)]
CASES = [
    (name, shapes)
    for name in METHODS
    for shapes in (SQUARE, UNEVEN, VECTORS)
    if shapes is not VECTORS or method_named(name).taps == "embedding"
]


def _loss(name: str, shapes: Shapes) -> Callable[..., Tensor]:
    """With the settings it has where a recipe sets none."""
    torch.manual_seed(0)
    method = method_named(name)
    settings = method.parameter_model().model_dump()
    if method.module is None:
        return lambda **quantities: method.make(**quantities, **settings)
    known = {
        "student_shape": shapes[0][-1],
        "teacher_shape": shapes[1][-1],
        "student_shapes": shapes[0],
        "teacher_shapes": shapes[1],
        "sample_count": SAMPLES,
    }
    wanted = inspect.signature(method.make).parameters.values()
    adapter: nn.Module = method.make(*(known[p.name] for p in wanted if p.name in known), **settings)
    return adapter


def _features(shapes: Shapes, *, batch: int = 4, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], ...]:
    generator = torch.Generator().manual_seed(5)
    drawn = [[torch.randn(batch, *shape, generator=generator) for shape in side] for side in shapes]
    return tuple([feature.to(dtype).requires_grad_() for feature in side] for side in drawn)


def _call(name: str, loss: Callable[..., Tensor], students: list[Tensor], teachers: list[Tensor]) -> Tensor:
    device = students[0].device
    known: dict[str, Any] = {
        "student_feature": students[-1],
        "teacher_feature": teachers[-1],
        "student_features": students,
        "teacher_features": teachers,
        "targets": torch.arange(len(students[0]), device=device) % 3,
        "indices": torch.arange(len(students[0]), device=device),
    }
    return loss(**{quantity: known[quantity] for quantity in method_named(name).inputs})


def _looked_at(name: str, features: list[Tensor]) -> list[Tensor]:
    return features if method_named(name).takes_all_taps else features[-1:]


def _check(name: str, loss: Callable[..., Tensor], students: list[Tensor], teachers: list[Tensor]) -> Tensor:
    """A finite number with finite gradients for the student, none for the teacher."""
    value = _call(name, loss, students, teachers)
    value.backward()
    assert value.ndim == 0 and value.isfinite() and value.dtype in (torch.float32, torch.float64)
    for feature in _looked_at(name, students):
        assert feature.grad is not None and feature.grad.dtype == feature.dtype and feature.grad.isfinite().all()
    assert all(feature.grad is None for feature in teachers)
    if isinstance(loss, nn.Module):
        assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())
        assert all(buffer.isfinite().all() for buffer in loss.buffers())
    return value.detach()


def test_the_contract_is_run_on_all_of_them():
    assert set(METHODS) >= {
        *("attention", "correlation", "crd", "fitnets", "flow", "pkt", "relational", "review", "similarity"),
        *("simkd", "taylor", "variational"),
    }


@pytest.mark.parametrize("name", METHODS)
def test_surface(name):
    method = method_named(name)
    assert method.inputs[:2] in (("student_feature", "teacher_feature"), ("student_features", "teacher_features"))
    assert set(method.inputs[2:]) <= {"targets", "indices"}
    assert "Source:" in (method.make.__doc__ or "") + ((method.function and method.function.__doc__) or "")
    function = method.module.__init__ if method.module else method.make
    hints = get_type_hints(function, include_extras=True)
    for setting in inspect.signature(function).parameters.values():
        if setting.kind is inspect.Parameter.KEYWORD_ONLY:
            TypeAdapter(hints[setting.name]).validate_python(setting.default, strict=True)


@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_the_student_and_the_adapters_learn_and_the_teacher_does_not(name, shapes):
    students, teachers = _features(shapes)
    loss = _loss(name, shapes)
    _check(name, loss, students, teachers)
    assert all(feature.grad.any() for feature in _looked_at(name, students))
    if isinstance(loss, nn.Module):
        assert all(p.grad is not None and p.grad.any() for p in loss.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_finite_with_one_sample_with_zeros_and_with_samples_all_alike(name, shapes):
    _check(name, _loss(name, shapes), *_features(shapes, batch=1))
    usual = [[feature.detach() for feature in side] for side in _features(shapes)]
    zeros, alike = ([[made(f) for f in side] for side in usual] for made in (torch.zeros_like, _alike))
    for pairs in ((zeros, zeros), (zeros, usual), (usual, zeros), (alike, alike), (alike, usual), (usual, alike)):
        students, teachers = ([f.clone().requires_grad_() for f in features[i]] for i, features in enumerate(pairs))
        _check(name, _loss(name, shapes), students, teachers)


def _alike(feature: Tensor) -> Tensor:
    return feature[:1].repeat(len(feature), *[1] * (feature.ndim - 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_adapters_in_single_precision_accept_any_precision(name, shapes, dtype):
    exact = _check(name, _loss(name, shapes), *_features(shapes))
    found = _check(name, _loss(name, shapes), *_features(shapes, dtype=dtype))
    assert found.item() == pytest.approx(exact.item(), rel=1e-4 if dtype is torch.float64 else 0.1)


@pytest.mark.parametrize("networks", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_adapters_in_double_precision_accept_any_precision(name, shapes, networks):
    loss = _loss(name, shapes)
    _check(name, loss.double() if isinstance(loss, nn.Module) else loss, *_features(shapes, dtype=networks))


@pytest.mark.parametrize("name", METHODS)
def test_student_and_teacher_may_differ_in_precision(name):
    students, teachers = _features(SQUARE)
    _check(name, _loss(name, SQUARE), students, [f.detach().double() for f in teachers])
    _check(name, _loss(name, SQUARE), [f.detach().half().requires_grad_() for f in students], teachers)


@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_equal_seeds_give_equal_values_and_gradients(name, shapes):
    runs = []
    for _ in range(2):
        students, teachers = _features(shapes)
        value = _check(name, _loss(name, shapes), students, teachers)
        runs.append([value, *(f.grad for f in _looked_at(name, students))])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_on_a_gpu_as_on_the_cpu(name, shapes):
    loss = _loss(name, shapes)
    there = copy.deepcopy(loss).cuda() if isinstance(loss, nn.Module) else loss
    students, teachers = ([f.detach().cuda().requires_grad_() for f in side] for side in _features(shapes))
    value = _check(name, there, students, teachers)
    assert value.is_cuda and all(feature.grad.is_cuda for feature in _looked_at(name, students))
    if isinstance(there, nn.Module):
        assert all(tensor.is_cuda for tensor in there.state_dict().values())
        assert all(p.grad is None or p.grad.is_cuda for p in there.parameters())
    here = _check(name, loss, *_features(shapes))
    # Negatives are drawn by each device's own generator; a GPU's convolutions keep ten bits (TF32).
    assert name == "crd" or value.item() == pytest.approx(here.item(), rel=1e-2, abs=1e-6)


@pytest.mark.gpu
def test_relations_on_a_gpu_are_computed_in_single_precision_and_as_exact():
    student, teacher = (torch.randn(32, width, generator=torch.Generator().manual_seed(width)) for width in (16, 24))
    found = relational(student.cuda(), teacher.cuda())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(relational(student.double(), teacher.double()).item(), rel=1e-5)
