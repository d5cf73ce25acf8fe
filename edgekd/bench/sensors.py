"""Readings of the machine: clocks, temperatures, memory, and the load of other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path("/")


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds of all cores since boot: total, busy, and of this process with its ended children."""

    total: float
    busy: float
    own: float


def clocks_mhz(root: Path = _ROOT) -> dict[str, float] | None:
    """The CPU's mean clock, and on a Jetson the GPU's, in MHz; None if neither can be read."""
    clocks = {}
    try:
        frequency = psutil.cpu_freq()
    except (NotImplementedError, OSError):  # some kernels and containers do not show it: the record then has none
        frequency = None
    if frequency is not None and frequency.current > 0:
        clocks["cpu"] = round(float(frequency.current), 1)
    for file in sorted((root / "sys/class/devfreq").glob("*gpu*/cur_freq")):
        clocks["gpu"] = round(int(file.read_text()) / 1e6, 1)
    return clocks or None


def temperatures_c(root: Path = _ROOT) -> dict[str, float] | None:
    """Degrees Celsius by thermal zone of the kernel, else by sensor chip; None if there is neither."""
    return _zones(root) or _chips() or None


def resident_bytes() -> tuple[int | None, int | None]:
    """Current and peak resident memory of this process, in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 if name in fields else None for name in ("VmRSS", "VmHWM"))
    return now, peak


def load_average() -> float:
    return float(psutil.getloadavg()[0])


def cpu_times() -> CpuTimes:
    times = psutil.cpu_times()
    # Linux includes guests' time in the user's.
    total = sum(times) - times.guest - times.guest_nice
    own = psutil.Process().cpu_times()
    mine = own.user + own.system + own.children_user + own.children_system
    return CpuTimes(total, total - times.idle - times.iowait, mine)


def others_share(before: CpuTimes, after: CpuTimes) -> float:
    """The fraction (0 to 1) of all cores' time that other processes used between two readings."""
    spent = after.total - before.total
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / spent) if spent > 0 else 0.0


def _zones(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        try:
            kind, degrees = (zone / "type").read_text().strip(), int((zone / "temp").read_text()) / 1000
        except OSError:
            # On a Jetson, the zone of a part that is switched off cannot be read.
            continue
        found[kind if kind not in found else f"{kind} {zone.name}"] = degrees
    return found


def _chips() -> dict[str, float]:
    return {
        f"{chip} {entry.label or index}".strip(): float(entry.current)
        for chip, entries in psutil.sensors_temperatures().items()
        for index, entry in enumerate(entries)
    }
