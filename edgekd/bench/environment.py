"""The machine and its engines, which latencies depend on. Records no host name and no user name."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from edgekd.bench.emulation import emulation
from edgekd.errors import BenchError
from edgekd.runtime import processor
from edgekd.runtime.backends import all_backends
from edgekd.runtime.cores import usable_cores

_ROOT = Path("/")
_NVPMODEL_SECONDS = 5.0


class Environment(BaseModel):
    """The machine. A field is None where the machine does not report it, or the package is not installed.

    Attributes:
        board: the name in the device tree, on ARM boards.
        instruction_sets: see edgekd.runtime.processor; None: not known.
        cores: the number of cores that this process may use; see edgekd.runtime.cores.
        engines: the versions of the installed inference engines, by title.
        governor: the CPU's frequency governor.
        power_mode: the name of the Jetson's power mode; numbers mean different modes on different boards.
        l4t: the Jetson's Linux release, e.g. "36.4.0".
        emulated: the sign by which the processor is emulated; None: it has none. See edgekd.bench.emulation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    board: str | None
    arch: str
    instruction_sets: tuple[str, ...] | None
    cores: int
    ram_bytes: int
    os: str
    kernel: str
    python: str
    numpy: str | None
    engines: dict[str, str]
    governor: str | None
    power_mode: str | None
    l4t: str | None
    emulated: str | None


def environment(root: Path = _ROOT) -> Environment:
    """Read this machine's environment; the system's files are looked up under `root`."""
    return Environment(
        cpu=processor.name(root),
        board=processor.board(root),
        arch=platform.machine(),
        instruction_sets=processor.instruction_sets(root),
        cores=usable_cores(root),
        ram_bytes=int(psutil.virtual_memory().total),
        os=_os_name(root),
        kernel=platform.release(),
        python=platform.python_version(),
        numpy=_version("numpy"),
        engines={each.title: version for each in all_backends() if (version := each.version()) is not None},
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        power_mode=_nvpmodel(),
        l4t=_l4t(root),
        emulated=emulation(root),
    )


def fingerprint(env: Environment) -> str:
    """16 hexadecimal digits, equal for environments whose latencies are comparable."""
    deciding = env.model_dump(include={"cpu", "board", "arch", "cores", "engines", "power_mode", "l4t", "emulated"})
    deciding["int8"] = sorted(processor.deciding(env.instruction_sets))
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def emulation_warning(env: Environment) -> str | None:
    """What a latency from here is worth, in a sentence or two; None on a real processor."""
    if env.emulated is None:
        return None
    return f"The processor is emulated: {env.emulated}. Latencies from here are not those of any hardware."


def require_real_processor(what: str) -> None:
    """Refuse what rests on a latency where the processor is emulated.

    Args:
        what: the setting that needs a latency.

    Raises:
        BenchError: the processor is emulated.
    """
    if (sign := emulation()) is not None:
        raise BenchError(
            f"{what} needs a latency, and the processor here is emulated",
            found=sign,
            hint=f"run on the hardware itself, or without {what}",
        )


def _os_name(root: Path) -> str:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _l4t(root: Path) -> str | None:
    """From a line such as `# R36 (release), REVISION: 4.0, GCID: …, BOARD: generic, …`."""
    first = (_text(root / "etc/nv_tegra_release") or "").partition("\n")[0]
    major, _, rest = first.removeprefix("# R").partition(" (release), REVISION: ")
    revision = rest.partition(",")[0]
    return f"{major}.{revision}" if revision else None


def _nvpmodel() -> str | None:
    """From a line such as `NV Power Mode: MAXN_SUPER`."""
    if shutil.which("nvpmodel") is None:
        return None
    try:
        answer = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, timeout=_NVPMODEL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in answer.stdout.splitlines():
        label, _, mode = line.partition(":")
        if label.strip() == "NV Power Mode":
            return mode.strip()
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None
