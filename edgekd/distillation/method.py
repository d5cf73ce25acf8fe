"""The contract of a distillation method: the typed object `METHOD` that each file in methods/ exports.

The file's name is the method's name, the name of its pure function, and in CamelCase the name of its class. What a loss
needs is read off its signature: positional parameters are its inputs, keyword-only ones are what a recipe may set.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError
from torch import Tensor, nn

from edgekd import plugins
from edgekd.distillation.taps import Kind as TapKind
from edgekd.errors import PluginError, UsageError, nearest
from edgekd.recipe.settings import ClassWeights, Task, TermSettings

TEACHER_INPUTS = ("teacher_logits", "teacher_feature", "teacher_features")
FEATURES = ("student_feature", "teacher_feature", "student_features", "teacher_features")
INPUTS = ("student_logits", "teacher_logits", "targets", "indices", *FEATURES)
SHAPES = ("student_shape", "teacher_shape", "student_shapes", "teacher_shapes", "sample_count")

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
_NAMES = ("temperature", "standardize", "class_weights")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A loss, and its properties that others need. When it is loaded, it is checked against the signatures.

    Attributes:
        function: the pure loss; None where all of it has weights or a memory (crd).
        module: the class, where the loss has weights or a memory: it is built from the features' shapes.
        taps: for a loss on features: which layers are compared where the recipe names none.
        needs_labels: it has no value without targets.
        whole_row: it needs the logit of every class: stored top-k outputs would change it.
        signed: it can be below 0.
        changes_student: it replaces the student's last layer before the training; see
            edgekd.distillation.classifier_reuse.
        temperature: the parameter that softens the teacher's outputs.
        standardize: the switch that standardizes each row of logits.
        tasks: the kinds of labels that it has a meaning for; None: all, for a loss on features that uses no labels,
            else one label per image.
        class_weights: the parameter with a weight for each class; "auto" there is resolved from the training images.
        name: the file's name, filled in by edgekd.plugins.
    """

    name: str = field(init=False, default="")
    function: Callable[..., Tensor] | None = None
    module: type[nn.Module] | None = None
    taps: TapKind | None = None
    needs_labels: bool = False
    whole_row: bool = False
    signed: bool = False
    changes_student: bool = False
    temperature: str | None = None
    standardize: str | None = None
    class_weights: str | None = None
    tasks: tuple[Task, ...] | None = None

    def check_declaration(self) -> None:
        """Check the members against the name and the signatures.

        Raises:
            PluginError: they contradict each other.
        """
        self._check_types()
        self._check_names()
        self._check_signatures()
        self._check_parameters()
        self._check_flags()

    @property
    def make(self) -> Callable[..., Any]:
        """The class if the loss has weights or a memory, otherwise the function."""
        made = self.module or self.function
        assert made is not None
        return made

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its inputs; see INPUTS."""
        return tuple(p.name for p in _positional(self._called))

    @property
    def shape_inputs(self) -> tuple[str, ...]:
        """The names of its class' positional parameters; see SHAPES."""
        if self.module is None or self.module.__init__ is nn.Module.__init__:
            return ()
        return tuple(p.name for p in _positional(self.module.__init__))

    @property
    def needs_teacher(self) -> bool:
        """Whether it has no meaning without another network's outputs."""
        return any(p.name in TEACHER_INPUTS and p.default is p.empty for p in _positional(self._called))

    def suits(self, task: Task) -> bool:
        """Whether it has a meaning for labels of this kind."""
        if self.tasks is not None:
            return task in self.tasks
        return task == "single-label" or (self.on_features and "targets" not in self.inputs)

    @property
    def on_features(self) -> bool:
        """Whether it compares layers, and not logits."""
        return self.taps is not None

    @property
    def takes_all_taps(self) -> bool:
        """Whether it compares all layers at once instead of pair by pair."""
        return "student_features" in self.inputs

    @cached_property
    def parameter_model(self) -> type[BaseModel]:
        """A strict model of the parameters that a recipe may set, from the keyword-only parameters of the signature."""
        return create_model(f"{self.name}_parameters", __config__=_STRICT, **self._parameters())

    def _parameters(self) -> dict[str, Any]:
        """Type and default of each keyword-only parameter, as pydantic takes them."""
        function = self.module.__init__ if self.module is not None else self.make
        hints = get_type_hints(function, include_extras=True)
        return {
            p.name: (hints[p.name], ... if p.default is p.empty else p.default)
            for p in inspect.signature(function).parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def parameters_of(self, term: TermSettings) -> dict[str, Any]:
        """A term's parameters by name, with defaults.

        Args:
            term: of this method.

        Raises:
            pydantic.ValidationError: an unknown or wrong parameter.
        """
        return self.parameter_model.model_validate(term.parameters).model_dump()

    def temperature_of(self, term: TermSettings) -> float | None:
        """A term's temperature.

        Args:
            term: of this method.

        Returns:
            None if the method has no temperature.

        Raises:
            pydantic.ValidationError: an unknown or wrong parameter.
        """
        return None if self.temperature is None else float(self.parameters_of(term)[self.temperature])

    def standardizes(self, term: TermSettings) -> bool:
        """Whether a term sets standardized logits; its other parameters are not checked."""
        if self.standardize is None:
            return False
        return bool(term.parameters.get(self.standardize, self.parameter_model.model_fields[self.standardize].default))

    def class_weights_of(self, term: TermSettings) -> ClassWeights:
        """A term's weights of the classes, as the recipe sets them; None if it has none.

        Raises:
            pydantic.ValidationError: an unknown or wrong parameter.
        """
        weights: ClassWeights = None if self.class_weights is None else self.parameters_of(term)[self.class_weights]
        return weights

    def check(self, term: TermSettings) -> None:
        """Check a term as far as possible without networks.

        Args:
            term: of this method.

        Raises:
            pydantic.ValidationError: its parameters.
            UsageError: layers for a loss on logits, or layers of one network only.
        """
        self.parameters_of(term)
        students, teachers = term.student_layers, term.teacher_layers
        if students is None and teachers is None:
            return
        if not self.on_features:
            raise UsageError(
                f"{self.name} is a loss on logits: it does not use layers",
                hint="remove student_layers and teacher_layers",
            )
        if students is None or teachers is None:
            raise UsageError(
                f"{self.name} compares layers of two networks, but layers of one network are set",
                allowed="both student_layers and teacher_layers, or neither: then they are chosen",
            )
        if self.changes_student:
            raise UsageError(
                f"{self.name} changes the student's last layer and uses no other layers",
                hint="remove student_layers and teacher_layers",
            )
        if len(students) != len(teachers) and not self.takes_all_taps:
            raise UsageError(
                f"{self.name} compares layers in pairs",
                found=f"{len(students)} student_layers, {len(teachers)} teacher_layers",
                allowed="equally many of each",
            )

    @property
    def _called(self) -> Callable[..., Any]:
        """What the inputs are passed to."""
        return self.module.forward if self.module is not None else self.make

    def _check_types(self) -> None:
        if self.function is None and self.module is None:
            self._refuse("a method is a function, a class, or both", found="neither", allowed="function=, module=")
        if self.function is not None and not inspect.isfunction(self.function):
            self._refuse("function has another type", found=repr(self.function), allowed="a Python function")

    def _check_names(self) -> None:
        camel = "".join(part.title() for part in self.name.split("_"))
        for kind, made, wanted in (("function", self.function, self.name), ("class", self.module, camel)):
            if made is not None and made.__name__ != wanted:
                self._refuse(f"the {kind} has another name than the file", found=made.__name__, allowed=wanted)

    def _check_signatures(self) -> None:
        functions = [self._called] if self.function is None else [self._called, self.function]
        for name in (p.name for function in functions for p in _positional(function)):
            if name not in INPUTS:
                self._refuse_name("no loss has the input", name, INPUTS)
        for name in self.shape_inputs:
            if name not in SHAPES:
                self._refuse_name("no class can be built from", name, SHAPES)

    def _check_parameters(self) -> None:
        try:
            known = list(self.parameter_model.model_fields)
        except KeyError as error:
            self._refuse(f"the parameter {error.args[0]} has no type", hint="annotate it: recipes are checked by it")
        except (NameError, SyntaxError, TypeError, PydanticUserError) as error:
            self._refuse("a parameter's type cannot be checked in a recipe", found=error)
        defaults = {name: typed for name, typed in self._parameters().items() if typed[1] is not ...}
        try:
            create_model("defaults", __config__=ConfigDict(**_STRICT, validate_default=True), **defaults)()
        except ValidationError as error:
            wrong = error.errors()[0]
            name = wrong["loc"][0]
            self._refuse(f"the default of the parameter {name} is not of its type", found=f"{wrong['input']!r}")
        if taken := sorted({*known} & {*TermSettings.model_fields}):
            self._refuse("each term of an objective has this key already", found=", ".join(taken))
        for member in _NAMES:
            if (name := getattr(self, member)) is not None and name not in known:
                self._refuse_name(f"{member} names a parameter that is not in the signature:", name, known)

    def _check_flags(self) -> None:
        features = [name for name in self.inputs if name in FEATURES]
        single = [name for name in features if name.endswith("feature")]
        reason = {
            "a loss on features needs taps: which layers it compares": bool(features) and self.taps is None,
            "taps is for losses with features as inputs": self.taps is not None and not features,
            "a loss compares pairs of layers or all at once, not both": 0 < len(single) < len(features),
            "needs_labels is for losses with targets as an input": self.needs_labels and "targets" not in self.inputs,
            "whole_row is for losses with teacher_logits as an input": self.whole_row
            and "teacher_logits" not in self.inputs,
            "changes_student is for losses on features with a function and a class": self.changes_student
            and (self.function is None or self.module is None or self.taps is None),
        }
        for what, wrong in reason.items():
            if wrong:
                self._refuse(what, found=f"inputs {', '.join(self.inputs) or '(none)'}")

    def _refuse_name(self, what: str, name: str, known: Sequence[str]) -> NoReturn:
        near = nearest(name, known)
        allowed = ", ".join(known) or "none: it has no parameters"
        self._refuse(f"{what} {name!r}", allowed=allowed, hint=f"did you mean {near!r}?" if near else None)

    def _refuse(self, what: str, *, found: object = None, allowed: object = None, hint: str | None = None) -> NoReturn:
        raise PluginError(what, found=found, allowed=allowed, hint=hint)


def method_named(name: str) -> Method:
    """The method in the file of its name.

    Raises:
        UnknownNameError: there is no such method.
        PluginError: its file is broken.
    """
    found: Method = plugins.load("method", name)
    return found


def _positional(function: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY and p.name != "self"]
