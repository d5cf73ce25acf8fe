"""The objective: weighted losses, with the adapters that they need between two networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.data.balance import resolved
from edgekd.distillation.method import FEATURES, Method, method_named
from edgekd.distillation.methods._logits import exact
from edgekd.distillation.probe import Probe
from edgekd.distillation.probe import pair as matched
from edgekd.distillation.taps import Shape
from edgekd.errors import EdgekdError, PluginError, UsageError, summary
from edgekd.recipe.settings import Task, TermSettings
from edgekd.runtime.preprocess import InputShape

Features = Mapping[str, Tensor]
# The student's paths and the teacher's, compared with each other.
Pair = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Seen:
    """The inputs of all terms for one batch.

    Attributes:
        student_logits, teacher_logits: (B, C); the teacher's only where there is one.
        targets: (B,) class indices, or (B, C), 1 where an image has a class.
        indices: (B,) positions in the training split.
        student_features, teacher_features: by the path they were tapped at.
        epoch: epochs completed, with a fraction: sets the progress of warm-ups.
    """

    student_logits: Tensor
    teacher_logits: Tensor | None
    targets: Tensor | None = None
    indices: Tensor | None = None
    student_features: Features | None = None
    teacher_features: Features | None = None
    epoch: float = math.inf


@dataclass(frozen=True)
class Networks:
    """What adapters are built for.

    Attributes:
        teacher: None if no term compares its layers.
        shape: of the input.
        sample_count: images in the training split.
        class_count: the width of the logits that losses are tried on.
        class_counts: labelled training images of each class; empty where they are not known.
        task: whether targets are (B,) class indices or (B, C), 0 or 1.
    """

    student: nn.Module
    teacher: nn.Module | None
    shape: InputShape
    sample_count: int
    class_count: int
    class_counts: Sequence[int] = ()
    task: Task = "single-label"


class Term(nn.Module):
    """One weighted loss over the taps it was built for."""

    def __init__(self, settings: TermSettings, method: Method, losses: Sequence[Callable[..., Tensor]]) -> None:
        super().__init__()
        self.method = method
        self.weight = settings.weight
        self._warmup_epochs = settings.warmup_epochs
        self.pairs: tuple[Pair, ...] = ()
        self.adapters = nn.ModuleList([loss for loss in losses if isinstance(loss, nn.Module)])
        self._functions = () if len(self.adapters) else tuple(losses)

    @property
    def losses(self) -> tuple[Callable[..., Tensor], ...]:
        """One for each pair of taps."""
        return self._functions or tuple(self.adapters)

    def forward(self, seen: Seen) -> Tensor:
        """The weighted loss of a batch, a scalar: the sum over the pairs of taps, times its warm-up."""
        pairs = self.pairs or (((), ()),)
        values = [loss(**self.inputs(seen, *pair)) for loss, pair in zip(self.losses, pairs, strict=True)]
        warm = min(1.0, seen.epoch / self._warmup_epochs) if self._warmup_epochs else 1.0
        return warm * self.weight * reduce(add, values)

    def inputs(self, seen: Seen, student: Sequence[str], teacher: Sequence[str]) -> dict[str, Any]:
        """The arguments of the loss by name, for one pair of taps; logits and features in at least single precision.

        Args:
            seen: the batch.
            student, teacher: the paths of the features that are compared; empty for a loss on logits.
        """
        found: dict[str, Any] = {name: getattr(seen, name) for name in self.method.inputs if name not in FEATURES}
        for name in found.keys() & {"student_logits", "teacher_logits"}:
            found[name] = found[name] if found[name] is None else exact(found[name])
        for name, paths, features in (
            ("student_feature", student, seen.student_features),
            ("teacher_feature", teacher, seen.teacher_features),
        ):
            if name in self.method.inputs and features is not None:
                found[name] = exact(features[paths[0]])
            if f"{name}s" in self.method.inputs and features is not None:
                found[f"{name}s"] = [exact(features[path]) for path in paths]
        return found


class Terms(nn.Module):
    """The whole objective: its terms, and the layers that they compare."""

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.each = tuple(terms)
        self.terms = nn.ModuleList(terms)  # so that their weights are found
        pairs = [pair for term in terms for pair in term.pairs]
        self.student_layers = tuple(dict.fromkeys(path for student, _ in pairs for path in student))
        self.teacher_layers = tuple(dict.fromkeys(path for _, teacher in pairs for path in teacher))

    @property
    def needs_teacher(self) -> bool:
        """Whether a term uses the teacher's outputs."""
        return any(term.method.needs_teacher for term in self.each)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The terms' names, in the recipe's order; a method that occurs twice has a number at its second name."""
        names: list[str] = []
        for term in self.each:
            name = term.method.name
            names.append(name if name not in names else f"{name}-{len(names) + 1}")
        return tuple(names)

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The weighted losses by name, computed in single precision whatever the networks computed in."""
        with torch.autocast(seen.student_logits.device.type, enabled=False):
            return {name: term(seen) for name, term in zip(self.names, self.each, strict=True)}


def build_terms(objective: Sequence[TermSettings], networks: Networks) -> Terms:
    """The objective's terms with their adapters for two networks.

    Args:
        objective: the terms as a recipe sets them.
        networks: student and teacher, and their data's sizes.

    Returns:
        The terms, tried once on zeros of the features' shapes.

    Raises:
        UsageError: a term compares layers and there is no teacher, it cannot compare these layers, or its weights do
            not fit the classes; see also Method.check().
        UnknownNameError: the objective names an unknown layer or method.
        ModelError: a layer gives no feature.
        pydantic.ValidationError: a term's parameters.
    """
    probed = _Probed(networks)
    return Terms([_build(settings, probed) for settings in objective])


class _Probed:
    """Both networks, each probed once, and only if a term needs it."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    @cached_property
    def student(self) -> Probe:
        return Probe(self.networks.student, self.networks.shape, whose="student")

    @cached_property
    def teacher(self) -> Probe:
        assert self.networks.teacher is not None
        return Probe(self.networks.teacher, self.networks.shape, whose="teacher")


def _build(settings: TermSettings, probed: _Probed) -> Term:
    method = method_named(settings.method)
    method.check(settings)
    if not method.suits(probed.networks.task):
        raise UsageError(f"the loss {method.name} has no meaning for data.task: {probed.networks.task}")
    parameters = method.parameters_of(settings)
    if method.class_weights is not None:
        weights = method.class_weights_of(settings)
        parameters[method.class_weights] = resolved(weights, probed.networks.class_counts)
    if not method.on_features:
        term = Term(settings, method, [partial(method.make, **parameters)])
        _try_on_logits(term, settings, probed.networks.class_count, probed.networks.task)
        return term
    if probed.networks.teacher is None:
        raise UsageError(f"{method.name} compares the student's layers with a teacher's, but there is no teacher here")
    student, teacher = _paths(settings, method, probed)
    pairs: list[Pair] = [((s,), (t,)) for s, t in zip(student, teacher, strict=True)]
    if method.takes_all_taps:
        pairs = [(student, teacher)]
    if method.changes_student:
        # The adapter is part of the student already: its feature is as wide as the teacher's.
        assert method.function is not None
        losses: list[Callable[..., Tensor]] = [method.function for _ in pairs]
    elif method.module is None:
        losses = [partial(method.make, **parameters) for _ in pairs]
    else:
        losses = [_adapter(method, parameters, pair, probed) for pair in pairs]
    term = Term(settings, method, losses)
    term.pairs = tuple(pairs)
    _try(term, probed)
    return term


def _try_on_logits(term: Term, settings: TermSettings, classes: int, task: Task) -> None:
    """Run the loss once on four rows of logits, so that an error is raised before the first step of the training.

    Raises:
        PluginError: a loss from outside fails, or gives anything but a scalar with a gradient.
        UsageError: with these settings it or its gradient is not a finite number.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(4) % classes
    student, teacher = (torch.randn(4, classes, generator=generator) for _ in range(2))
    targets = rows if task == "single-label" else (torch.arange(classes) == rows[:, None]).long()
    seen = Seen(student.requires_grad_(), teacher, targets, rows)
    try:
        with torch.enable_grad(), torch.random.fork_rng():
            (value,) = (loss(**term.inputs(seen, (), ())) for loss in term.losses)
    except Exception as error:  # the code of a loss from outside may raise anything
        if (failed := plugins.failure(error)) is not None:
            raise failed from error
        if isinstance(error, EdgekdError):
            raise
        raise _not_computable(term, settings, summary(error)) from error
    _check_value(term.method, value)
    weighted = term.weight * value
    gradient = torch.autograd.grad(weighted, student, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise PluginError(f"the loss {term.method.name} has no gradient for the student", found="a constant")
    if not bool(weighted.isfinite()) or not bool(gradient.isfinite().all()):
        raise _not_computable(term, settings, "NaN or infinity for random logits, in float32")


def _not_computable(term: Term, settings: TermSettings, found: str) -> UsageError:
    given = ", ".join(f"{name}: {value}" for name, value in {"weight": term.weight, **settings.parameters}.items())
    return UsageError(
        f"the loss {term.method.name} cannot be computed with {given}",
        found=found,
        hint="set its weight and parameters to usual sizes, or remove them: then the defaults apply",
    )


def _check_value(method: Method, value: object) -> None:
    if not isinstance(value, Tensor) or value.ndim:
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise PluginError(
            f"the loss {method.name} does not return a scalar tensor", found=found, allowed="e.g. .mean()"
        )


def _try(term: Term, probed: _Probed) -> None:
    """Run the loss once on zeros, so that an error is raised before the first step of the training.

    Raises:
        UsageError: the loss refuses these shapes.
        PluginError: as _try_on_logits().
    """
    zeros = torch.zeros(2, dtype=torch.int64)
    for loss, (student, teacher) in zip(term.losses, term.pairs, strict=True):
        shapes = probed.student.shapes(student), probed.teacher.shapes(teacher)
        features = [{path: torch.zeros(2, *shape) for path, shape in found.items()} for found in shapes]
        seen = Seen(torch.zeros(2, 2), None, zeros, zeros, features[0], features[1])
        was_training = isinstance(loss, nn.Module) and loss.training
        try:
            with torch.no_grad(), torch.random.fork_rng():
                if isinstance(loss, nn.Module):
                    loss.eval()
                _check_value(term.method, loss(**term.inputs(seen, student, teacher)))
        except (ValueError, RuntimeError) as error:
            raise _unlike(term.method, (student, teacher), shapes, error) from error
        finally:
            if isinstance(loss, nn.Module):
                loss.train(was_training)


def _adapter(method: Method, parameters: dict[str, Any], pair: Pair, probed: _Probed) -> Callable[..., Tensor]:
    probes = (probed.student, probed.teacher)
    named = [probe.shapes(paths) for probe, paths in zip(probes, pair, strict=True)]
    shapes = [list(found.values()) for found in named]
    known: dict[str, Any] = {
        "student_shape": shapes[0][0],
        "teacher_shape": shapes[1][0],
        "student_shapes": shapes[0],
        "teacher_shapes": shapes[1],
        "sample_count": probed.networks.sample_count,
    }
    try:
        adapter: Callable[..., Tensor] = method.make(*(known[name] for name in method.shape_inputs), **parameters)
    except ValueError as error:
        raise _unlike(method, pair, (named[0], named[1]), error) from error
    return adapter


Shapes = Mapping[str, Shape]


def _unlike(method: Method, pair: Pair, shapes: tuple[Shapes, Shapes], error: Exception) -> UsageError:
    students, teachers = (
        ", ".join(f"{path} {'x'.join(map(str, found[path]))}" for path in paths)
        for paths, found in zip(pair, shapes, strict=True)
    )
    return UsageError(
        f"{method.name} cannot compare these layers: {error}",
        found=f"{students} of the student, {teachers} of the teacher",
        hint="name others with student_layers and teacher_layers",
    )


def _paths(settings: TermSettings, method: Method, probed: _Probed) -> Pair:
    student, teacher = settings.student_layers, settings.teacher_layers
    if student is None or teacher is None:
        assert method.taps is not None
        return matched(probed.student, probed.teacher, method.taps)
    probed.student.shapes(student)
    probed.teacher.shapes(teacher)
    return student, teacher
