"""The errors that edgekd raises.

EdgekdError                     exit code 1
├── UsageError                  exit code 2: the command line or a recipe is wrong
│   ├── UnknownNameError            no plugin, model or device of that name
│   └── RecipeError                 all mistakes in one recipe, each with its line
├── DataError                   images, labels or splits that cannot be used
│   └── RangeError                  an image's values lie outside of the range that it is read in
├── ModelError                  a network that cannot be built, or weights that do not fit it
├── ArtifactError               a stage's folder that is missing, incomplete, or changed since it was written
├── StoreError                  the run's folder cannot be written: disk full, or no permission
│   └── RunLockedError              another run is working in the same folder
├── TrainingError               training cannot continue
│   ├── NonFiniteLossError          the loss became NaN or infinite
│   └── OutOfMemoryError            the batch does not fit
├── ExportError                 the graph cannot be written, or computes something else than the network
├── BundleError                 a bundle that is missing, incomplete or changed
├── BackendError                an inference engine that is not available here, or that refuses the model
├── BenchError                  a model that cannot be measured
├── PreflightError              several mistakes at once, before the first training; 2 where all are usage errors
├── PluginError                 a plugin's file that cannot be imported, exports another object than its kind
│                               requires, or has the name of another plugin
└── MissingDependencyError      a package that is not installed is needed for this

A message states what was wrong, what was found, what is allowed, and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib import import_module
from numbers import Integral
from types import ModuleType

from edgekd.wording import counted


class EdgekdError(Exception):
    """Base of every error that edgekd raises on purpose.

    Args:
        what: what is wrong, and where, in one line.
        found: what was found instead.
        allowed: what would be right.
        hint: the next step for the user.
    """

    exit_code: int = 1

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
    """An unknown name; the message has the nearest known name and all known names."""

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
    """All mistakes in one recipe."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{source}: {counted(count, 'mistake')}\n" + "\n".join(self.problems))


class DataError(EdgekdError):
    pass


class RangeError(DataError):
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
    """A broken plugin from outside edgekd was skipped while all plugins of a kind were loaded."""


class BundleWarning(UserWarning):
    """A bundle's default is not used on this machine, and why."""


class MissingDependencyError(EdgekdError):
    pass


class PreflightError(EdgekdError):
    """All mistakes that were found before the first training."""

    def __init__(self, errors: Sequence[EdgekdError]) -> None:
        self.errors = tuple(errors)
        self.exit_code = UsageError.exit_code if all(isinstance(error, UsageError) for error in errors) else 1
        listed = (f"{number}. {error}".replace("\n", "\n   ") for number, error in enumerate(errors, 1))
        super().__init__("\n".join([f"{len(errors)} mistakes", *listed]))


def summary(error: BaseException) -> str:
    """An exception's type and the first line of its message that is not blank, cut at 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def whole_number(value: object, what: str) -> int:
    """`value` as an int; also NumPy's whole numbers are taken.

    Args:
        what: what the value is, for the message.

    Raises:
        UsageError: not a whole number, or below 1.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{what} must be a whole number of at least 1", found=repr(value))
    return int(value)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most similar to `name`, or None."""
    by_lower = {option.lower(): option for option in options}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        purpose: what needs the module, for the message.
        extra: the extra of edgekd that installs it, for the message.

    Raises:
        MissingDependencyError: the module is not installed.
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
