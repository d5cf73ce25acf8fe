"""What the files in methods/ declare: which losses there are, what they ask for, and what a recipe may set on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor, nn

from edgekd import plugins
from edgekd.distillation import taps
from edgekd.errors import UsageError
from edgekd.recipe.settings import DistillSettings, TermSettings
from edgekd.store.artifacts import Json

_FLAGS = ("NEEDS_LABELS", "WHOLE_ROW", "SIGNED", "GRAFTS")


@dataclass(frozen=True)
class Method:
    """A loss as its file declares it.

    Attributes:
        make: what gives the loss: the function, or the class where it has weights.
        inputs: what it asks for by name.
        needs_teacher: it has no meaning without another network's answers.
        needs_labels, whole_row, signed, grafts, taps: see edgekd.distillation.methods.
    """

    name: str
    make: Callable[..., Any]
    function: Callable[..., Tensor] | None
    is_class: bool
    inputs: tuple[str, ...]
    needs_teacher: bool
    needs_labels: bool
    whole_row: bool
    signed: bool
    grafts: bool
    taps: taps.Kind | None

    @property
    def on_features(self) -> bool:
        return self.taps is not None

    @property
    def takes_all_taps(self) -> bool:
        return "student_features" in self.inputs


def method_named(name: str) -> Method:
    """The loss in the file of its name.

    Raises:
        UnknownNameError: there is no such method.
    """
    module = plugins.load("method", name)
    function: Callable[..., Any] | None = getattr(module, name, None)
    found: type[nn.Module] | None = getattr(module, "".join(part.title() for part in name.split("_")), None)
    kind: taps.Kind | None = getattr(module, "TAPS", None)
    flags = {name.lower(): bool(getattr(module, name, False)) for name in _FLAGS}
    make = found or function
    assert make is not None, f"{name}.py has neither {name}() nor a class of its name"
    inputs = positional(make if found is None else found.forward)
    needs_teacher = any(p.name.startswith("teacher") and p.default is p.empty for p in inputs)
    names = tuple(p.name for p in inputs)
    return Method(name, make, function, found is not None, names, needs_teacher, taps=kind, **flags)


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
    if any(named) and method.grafts:
        raise UsageError(
            f"{method.name} changes the student's last layer: it looks at no others", hint="leave them out"
        )
    if settings.student_layers and settings.teacher_layers and not method.takes_all_taps:
        _same_number(method, settings.student_layers, settings.teacher_layers)
    return method


def parameters_of(settings: TermSettings) -> dict[str, Any]:
    """With defaults filled in. Raises pydantic.ValidationError."""
    return parameter_model(settings.method).model_validate(settings.parameters).model_dump()


def inherited(objective: Sequence[TermSettings]) -> tuple[TermSettings, ...]:
    """What a later training takes over: the losses on logits, for layers may be gone or narrower, without warm-up.

    Where none of them asks the teacher, the default objective: else nothing would be distilled any more.
    """
    kept = [term.model_copy(update={"warmup_epochs": 0.0}) for term in on_logits(objective)]
    if not any(method_named(term.method).needs_teacher for term in kept):
        return DistillSettings().objective
    return tuple(kept)


def objective_json(objective: Sequence[TermSettings]) -> list[Json]:
    """An objective as keys and manifests hold it."""
    return [term.model_dump(mode="json") for term in objective]


def on_logits(objective: Sequence[TermSettings]) -> tuple[TermSettings, ...]:
    """The terms that look at no layers."""
    return tuple(term for term in objective if not method_named(term.method).on_features)


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a method asks for by name."""
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY and p.name != "self"]


def _same_number(method: Method, student: Sequence[str], teacher: Sequence[str]) -> None:
    if len(student) != len(teacher):
        raise UsageError(
            f"{method.name} compares layers one with one",
            found=f"{len(student)} student_layers, {len(teacher)} teacher_layers",
            allowed="as many of each",
        )
