"""Device profiles: one YAML file per device; every figure has its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd import safe_yaml
from edgekd.errors import UnknownNameError, UsageError
from edgekd.plugin_places import folders_in

_PACKAGE = Path(__file__).parents[1]
# In the wheel the profiles lie inside the package, in a checkout beside it.
_PLACES = (_PACKAGE / "_profiles", _PACKAGE.parent / "profiles")
# The environment variable with folders of the user's own profiles; `edgekd --profiles` adds to it.
FOLDERS = "EDGEKD_PROFILES"


Positive = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Fact(_Frozen):
    """One figure of a device.

    Attributes:
        figure: its name, e.g. "memory_bandwidth".
        unit: of `value`, e.g. "GB/s"; None for a name or a count.
        source: where the value comes from: a data sheet, a file, a page.
        verified: whether it was read in `source` or on the device; False: recalled, computed, or second-hand.
    """

    figure: str
    value: float | int | str
    unit: str | None = None
    source: str
    verified: bool


class PowerMode(_Frozen):
    """One power mode of a Jetson. It has no number, because numbers mean different modes on different boards.

    Attributes:
        name: as `nvpmodel -q` reports it, e.g. "MAXN_SUPER".
        default: whether the file in `source` starts the board in this mode.
        cpu_cores: number of cores online.
        cpu_mhz: upper limit of the clock; None: the board's maximum. The same for `gpu_mhz` and `memory_mhz`.
        gpu_tpcs: number of powered texture processing clusters (TPCs); None where the file does not state it.
        memory_mhz: upper limit of the memory controller's clock (EMC).
        source: the file that the mode was read from.
    """

    name: str
    default: bool = False
    cpu_cores: Annotated[int, Field(ge=1)]
    cpu_mhz: Positive | None = None
    gpu_mhz: Positive | None = None
    gpu_tpcs: Annotated[int, Field(ge=1)] | None = None
    memory_mhz: Positive | None = None
    source: str


class Profile(_Frozen):
    """A device by name. "local" is this machine, whose figures are read at run time.

    Attributes:
        arch: of its processor, as `uname -m` reports it; None for this machine.
        engines: inference backends by name, the preferred one first.
        precisions: those that its engines compute in natively; None: not known, it depends on the engine.
        channel_multiple: pruning rounds widths to multiples of this, which the device's kernels are fastest on.
        tensorrt: TensorRT versions of its JetPack releases, the newest last; empty for devices without JetPack.
        power_modes: in the order of the file that they were read from.
    """

    name: str
    title: str
    kind: Literal["local", "board"]
    arch: Literal["aarch64", "x86_64"] | None = None
    engines: list[str] = []
    precisions: list[Literal["fp32", "fp16", "int8"]] | None = None
    channel_multiple: Annotated[int, Field(ge=1)] = 8
    tensorrt: list[str] = []
    power_modes: list[PowerMode] = []
    notes: list[str] = []
    facts: list[Fact] = []

    def fact(self, figure: str) -> Fact | None:
        """The fact about one figure, e.g. "memory"; None where the profile has none."""
        return next((fact for fact in self.facts if fact.figure == figure), None)


def names(folder: Path | None = None) -> tuple[str, ...]:
    """The sorted names of all devices; no file is read. Raises UsageError where a folder is not there."""
    return tuple(sorted({file.stem for file in _files(folder)}))


def find(name: str, folder: Path | None = None) -> Profile:
    """The profile of a device.

    Args:
        name: of the device.
        folder: with the YAML files; None: the folders in $EDGEKD_PROFILES, then edgekd's own.

    Raises:
        UnknownNameError: no device of that name.
        UsageError: its file is not a profile, two profiles have that name, or a folder is not there.
    """
    files = _files(folder)
    found = [file for file in files if file.stem == name]
    if not found:
        raise UnknownNameError("device", name, {file.stem for file in files})
    if len(found) > 1:
        raise UsageError(
            f"two profiles are called {name!r}: which device is meant?",
            found=" and ".join(map(str, found)),
            hint=f"rename one, or remove its folder from {FOLDERS}",
        )
    (file,) = found
    try:
        profile = Profile.model_validate(_mapping(file))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UsageError(f"{file}: {where}: {problem['msg']}", found=repr(problem["input"])) from None
    if profile.name != name:
        raise UsageError(f"{file}: name differs from the file's name", found=profile.name, allowed=name)
    return profile


def own_folder() -> Path:
    """Where edgekd's own profiles lie: in the wheel, or beside the package in a checkout."""
    return next(place for place in _PLACES if place.is_dir())


def _files(folder: Path | None) -> list[Path]:
    """All profiles, each file once even where the user names edgekd's own folder."""
    folders = [*folders_in(FOLDERS), own_folder()] if folder is None else [folder]
    return list(dict.fromkeys(file.resolve() for place in folders for file in sorted(place.glob("*.yaml"))))


def _mapping(file: Path) -> dict[str, Any]:
    try:
        value = safe_yaml.load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML", found=str(error)) from None
    if not isinstance(value, dict):
        raise UsageError(f"{file} is not a profile", found=type(value).__name__, allowed="a mapping of keys to values")
    return value
