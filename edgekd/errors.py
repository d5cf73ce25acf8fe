"""Everything edgekd raises on purpose.

EdgekdError                     exit code 1
├── UsageError                  exit code 2: the command line or a recipe is wrong
│   ├── UnknownNameError            a name that no plugin, model or device has
│   └── RecipeError                 all mistakes of one recipe, each with its line
├── DataError                   images, labels or splits that cannot be used
├── ModelError                  a network that cannot be built, or weights that do not fit it
├── ArtifactError               a stage's folder that is missing, half there, or changed since it was written
├── StoreError                  the run's folder: no room, no rights
│   └── RunLockedError              another run is working in the same folder
├── TrainingError               training cannot go on
│   ├── NonFiniteLossError          the loss became NaN or infinite
│   └── OutOfMemoryError            the batch does not fit
├── ExportError                 the graph cannot be written, or does not compute what the network computes
├── BundleError                 a bundle that is missing, incomplete or changed
├── BackendError                an inference engine that is not here, or that refuses the model
├── BenchError                  a model that cannot be measured
├── PluginError                 a plugin's file that is broken, exports something else than its kind asks for, or
│                               has the name of another
└── MissingDependencyError      something that is not installed is needed for this

A message says what was wrong, what was found, what is allowed, and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import ClassVar


class EdgekdError(Exception):
    """Base of every error that edgekd raises on purpose.

    Args:
        what: one line, what is wrong and where.
        found: what was there instead.
        allowed: what would be right.
        hint: the next step for the person who reads this.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, found: object = None, allowed: object = None, hint: str | None = None) -> None:
        self.what = what
        self.found = found
        self.allowed = allowed
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        parts = (("found", self.found), ("allowed", self.allowed), ("next", self.hint))
        return "\n".join([self.what, *(f"  {label}: {value}" for label, value in parts if value is not None)])


class UsageError(EdgekdError):
    exit_code = 2


class UnknownNameError(UsageError):
    """A name nobody knows; the message carries the nearest one and all that are known."""

    def __init__(self, noun: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        options = sorted(known)
        near = nearest(name, options)
        prefix = f"{where}: " if where else ""
        shown = ", ".join(options) if len(options) <= 40 else f"{len(options)} names, e.g. {', '.join(options[:8])}"
        super().__init__(
            f"{prefix}unknown {noun} {name!r}",
            allowed=shown or "none is installed",
            hint=f"did you mean {near!r}?" if near else None,
        )


class RecipeError(UsageError):
    """Every mistake of one recipe at once."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        noun = "mistake" if count == 1 else "mistakes"
        super().__init__(f"{source}: {count} {noun}\n" + "\n".join(self.problems))


class DataError(EdgekdError):
    pass


class ModelError(EdgekdError):
    pass


class ArtifactError(EdgekdError):
    pass


class StoreError(EdgekdError):
    pass


class RunLockedError(StoreError):
    pass


class TrainingError(EdgekdError):
    pass


class NonFiniteLossError(TrainingError):
    pass


class OutOfMemoryError(TrainingError):
    pass


class ExportError(EdgekdError):
    pass


class BundleError(EdgekdError):
    pass


class BackendError(EdgekdError):
    pass


class BenchError(EdgekdError):
    pass


class PluginError(EdgekdError):
    pass


class PluginWarning(UserWarning):
    """A broken plugin from outside was left out where all of a kind are looked at."""


class MissingDependencyError(EdgekdError):
    pass


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option that a person who typed `name` most likely meant, or None."""
    by_lower = {option.lower(): option for option in options}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Raises:
        MissingDependencyError: the module is not installed here.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs {module}, which is not installed here",
            hint=f"pip install 'edgekd[{extra}]', or do this on the workstation and copy the bundle over",
        ) from None
