"""From what a recipe says about a method to a loss: parameters checked against the method's own signature."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor, nn

from edgekd import plugins
from edgekd.distillation import taps
from edgekd.errors import UsageError
from edgekd.settings import TermSettings

Features = Mapping[str, Tensor]
# The student's paths and the teacher's, compared with each other.
Pair = tuple[tuple[str, ...], tuple[str, ...]]
_FEATURES = ("student_feature", "teacher_feature", "student_features", "teacher_features")


@dataclass(frozen=True)
class Seen:
    """What the terms of one batch can ask for.

    Attributes:
        student_logits, teacher_logits: (B, C); the teacher's only where there is one.
        targets: (B,) class indices.
        indices: (B,) positions in the training split.
        student_features, teacher_features: by the path they were tapped at.
        epoch: epochs done, with a fraction: how far terms are warmed up.
    """

    student_logits: Tensor
    teacher_logits: Tensor | None
    targets: Tensor | None = None
    indices: Tensor | None = None
    student_features: Features | None = None
    teacher_features: Features | None = None
    epoch: float = math.inf


@dataclass(frozen=True)
class Method:
    """A loss as its file declares it: a function, or a class where it has weights."""

    name: str
    make: Callable[..., Any]
    function: Callable[..., Tensor] | None
    is_class: bool
    inputs: tuple[str, ...]
    needs_teacher: bool
    raw_logits: bool
    grafts: bool
    taps: taps.Kind | None

    @property
    def on_features(self) -> bool:
        return self.taps is not None

    @property
    def takes_all_taps(self) -> bool:
        return "student_features" in self.inputs


@dataclass(frozen=True)
class Networks:
    """What adapters are built for; `teacher` is None where no network answers beside the student."""

    student: nn.Module
    teacher: nn.Module | None
    image_size: int
    sample_count: int


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

    def forward(self, seen: Seen) -> Tensor:
        losses = self._functions or tuple(self.adapters)
        pairs = self.pairs or (((), ()),)
        values = [loss(**self._inputs(seen, *pair)) for loss, pair in zip(losses, pairs, strict=True)]
        warm = min(1.0, seen.epoch / self._warmup_epochs) if self._warmup_epochs else 1.0
        return warm * self.weight * torch.stack(values).sum()

    def _inputs(self, seen: Seen, student: Sequence[str], teacher: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {name: getattr(seen, name) for name in self.method.inputs if name not in _FEATURES}
        for name, paths, features in (
            ("student_feature", student, seen.student_features),
            ("teacher_feature", teacher, seen.teacher_features),
        ):
            if name in self.method.inputs and features is not None:
                found[name] = features[paths[0]]
            if f"{name}s" in self.method.inputs and features is not None:
                found[f"{name}s"] = [features[path] for path in paths]
        return found


class Terms(nn.Module):
    """The whole objective: its terms, and which layers they want to see."""

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        pairs = [pair for term in terms for pair in term.pairs]
        self.student_layers = tuple(dict.fromkeys(path for student, _ in pairs for path in student))
        self.teacher_layers = tuple(dict.fromkeys(path for _, teacher in pairs for path in teacher))

    @property
    def needs_teacher(self) -> bool:
        return any(isinstance(term, Term) and term.method.needs_teacher for term in self.terms)

    @property
    def names(self) -> tuple[str, ...]:
        """In the recipe's order; a method may stand in an objective twice, with other parameters."""
        names: list[str] = []
        for term in self.terms:
            assert isinstance(term, Term)
            name = term.method.name
            names.append(name if name not in names else f"{name}-{len(names) + 1}")
        return tuple(names)

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The weighted losses by name, computed in single precision whatever the networks computed in."""
        with torch.autocast(seen.student_logits.device.type, enabled=False):
            return {name: term(seen) for name, term in zip(self.names, self.terms, strict=True)}


def method_named(name: str) -> Method:
    """The loss in the file of its name.

    Raises:
        UnknownNameError: there is no such method.
    """
    module = plugins.load("method", name)
    function: Callable[..., Any] | None = getattr(module, name, None)
    found: type[nn.Module] | None = getattr(module, "".join(part.title() for part in name.split("_")), None)
    kind: taps.Kind | None = getattr(module, "TAPS", None)
    raw, grafts = (bool(getattr(module, flag, False)) for flag in ("RAW_LOGITS", "GRAFTS"))
    make = found or function
    assert make is not None, f"{name}.py has neither {name}() nor a class of its name"
    inputs = _positional(make if found is None else found.forward)
    needs_teacher = any(p.name.startswith("teacher") and p.default is p.empty for p in inputs)
    names = tuple(p.name for p in inputs)
    return Method(name, make, function, found is not None, names, needs_teacher, raw, grafts, kind)


def parameter_model(name: str) -> type[BaseModel]:
    """A strict pydantic model of what a recipe may set on a method: its keyword-only parameters."""
    method = method_named(name)
    function = method.make.__init__ if method.is_class else method.make
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    config = ConfigDict(frozen=True, extra="forbid", strict=True)
    return create_model(f"{name}_parameters", __config__=config, **fields)


def check_term(settings: TermSettings) -> Method:
    """What can be checked before there is a network.

    Raises:
        UnknownNameError: no such method.
        pydantic.ValidationError: its parameters.
        UsageError: layers for a loss on logits, or layers of one network only.
    """
    method = method_named(settings.method)
    parameters_of(settings)
    named = [settings.student_layers is not None, settings.teacher_layers is not None]
    if any(named) and not method.on_features:
        raise UsageError(f"{method.name} is a loss on logits: it looks at no layers", hint="leave the layers out")
    if any(named) and not all(named):
        raise UsageError(
            f"{method.name} compares layers of two networks, and one is named",
            allowed="student_layers and teacher_layers, or neither: then they are chosen",
        )
    if settings.student_layers and settings.teacher_layers and not method.takes_all_taps:
        _same_number(method, settings.student_layers, settings.teacher_layers)
    return method


def build_terms(objective: Sequence[TermSettings], networks: Networks) -> Terms:
    """The objective's terms with their adapters for two networks.

    Raises:
        UsageError: a term needs a teacher's features and there is no teacher; see also check_term().
        UnknownNameError, ModelError: layers that are not there, or give nothing that can be compared.
    """
    probed = _Probed(networks)
    return Terms([_build(settings, probed) for settings in objective])


def parameters_of(settings: TermSettings) -> dict[str, Any]:
    """With defaults filled in. Raises pydantic.ValidationError."""
    return parameter_model(settings.method).model_validate(settings.parameters).model_dump()


def on_logits(objective: Sequence[TermSettings]) -> tuple[TermSettings, ...]:
    """The terms that look at no layers."""
    return tuple(term for term in objective if not method_named(term.method).on_features)


class _Probed:
    """Both networks, looked into once and only where a term wants it."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    @cached_property
    def student(self) -> taps.Probe:
        return taps.Probe(self.networks.student, self.networks.image_size, whose="student")

    @cached_property
    def teacher(self) -> taps.Probe:
        assert self.networks.teacher is not None
        return taps.Probe(self.networks.teacher, self.networks.image_size, whose="teacher")


def _build(settings: TermSettings, probed: _Probed) -> Term:
    method, parameters = check_term(settings), parameters_of(settings)
    if not method.on_features:
        return Term(settings, method, [partial(method.make, **parameters)])
    if probed.networks.teacher is None:
        raise UsageError(f"{method.name} compares the student's layers with a teacher's, and there is no teacher here")
    student, teacher = _paths(settings, method, probed)
    pairs: list[Pair] = [((s,), (t,)) for s, t in zip(student, teacher, strict=True)]
    if method.takes_all_taps:
        pairs = [(student, teacher)]
    if method.grafts:
        # The student was given the adapter already: what is compared is as wide as the teacher's.
        assert method.function is not None
        losses: list[Callable[..., Tensor]] = [method.function for _ in pairs]
    elif not method.is_class:
        losses = [partial(method.make, **parameters) for _ in pairs]
    else:
        losses = [_adapter(method, parameters, pair, probed) for pair in pairs]
    term = Term(settings, method, losses)
    term.pairs = tuple(pairs)
    return term


def _adapter(method: Method, parameters: dict[str, Any], pair: Pair, probed: _Probed) -> Callable[..., Tensor]:
    probes = (probed.student, probed.teacher)
    shapes = [list(probe.shapes(paths).values()) for probe, paths in zip(probes, pair, strict=True)]
    known: dict[str, Any] = {
        "student_shape": shapes[0][0],
        "teacher_shape": shapes[1][0],
        "student_shapes": shapes[0],
        "teacher_shapes": shapes[1],
        "sample_count": probed.networks.sample_count,
    }
    wanted = _positional(method.make.__init__)
    try:
        adapter: Callable[..., Tensor] = method.make(*(known[parameter.name] for parameter in wanted), **parameters)
    except ValueError as error:
        raise UsageError(
            f"{method.name} cannot compare these layers: {error}",
            found=f"{_layers(pair[0], shapes[0])} of the student, {_layers(pair[1], shapes[1])} of the teacher",
            hint="name others with student_layers and teacher_layers",
        ) from error
    return adapter


def _layers(paths: Sequence[str], shapes: Sequence[taps.Shape]) -> str:
    return ", ".join(f"{path} {'x'.join(map(str, shape))}" for path, shape in zip(paths, shapes, strict=True))


def _paths(settings: TermSettings, method: Method, probed: _Probed) -> Pair:
    student, teacher = settings.student_layers, settings.teacher_layers
    if student is None or teacher is None:
        assert method.taps is not None
        return taps.pair(probed.student, probed.teacher, method.taps)
    probed.student.shapes(student)
    probed.teacher.shapes(teacher)
    return student, teacher


def _same_number(method: Method, student: Sequence[str], teacher: Sequence[str]) -> None:
    if len(student) != len(teacher):
        raise UsageError(
            f"{method.name} compares layers one with one",
            found=f"{len(student)} student_layers, {len(teacher)} teacher_layers",
            allowed="as many of each",
        )


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY and p.name != "self"]
