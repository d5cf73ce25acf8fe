"""Device profiles: a YAML file a device, with figures that say where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.errors import UnknownNameError, UsageError

_PACKAGE = Path(__file__).parent
# In the wheel the profiles lie inside the package, in a checkout beside it.
_PLACES = (_PACKAGE / "_profiles", _PACKAGE.parent / "profiles")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Fact(_Frozen):
    """One figure of a device.

    Attributes:
        figure: what it says, e.g. "memory_bandwidth".
        unit: of `value`, e.g. "GB/s"; None for a name or a count.
        source: where it stands: a data sheet, a file, a page.
        verified: whether someone checked it against the device or a second source.
    """

    figure: str
    value: float | int | str
    unit: str | None = None
    source: str
    verified: bool


class Profile(_Frozen):
    """A device by name; "local" is the machine at hand, whose figures are read off it at run time."""

    name: str
    title: str
    kind: Literal["local", "board"]
    facts: list[Fact] = []


def names(folder: Path | None = None) -> tuple[str, ...]:
    """The names of all devices, sorted; no file is read."""
    return tuple(sorted(file.stem for file in (folder or _home()).glob("*.yaml")))


def find(name: str, folder: Path | None = None) -> Profile:
    """The profile of a device.

    Args:
        folder: where the YAML files lie; None: those that come with edgekd.

    Raises:
        UnknownNameError: no device of that name.
        UsageError: its file is not a profile.
    """
    known = names(folder)
    if name not in known:
        raise UnknownNameError("device", name, known)
    file = (folder or _home()) / f"{name}.yaml"
    try:
        profile = Profile.model_validate(_mapping(file))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UsageError(f"{file}: {where}: {problem['msg']}", found=repr(problem["input"])) from None
    if profile.name != name:
        raise UsageError(f"{file}: name is not the file's", found=profile.name, allowed=name)
    return profile


def _home() -> Path:
    return next(place for place in _PLACES if place.is_dir())


def _mapping(file: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML", found=str(error)) from None
    if not isinstance(value, dict):
        raise UsageError(f"{file} is no profile", found=type(value).__name__, allowed="keys and values")
    return value
