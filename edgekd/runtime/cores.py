"""The cores that this process may use: those it is bound to, and no more than the CPU quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_V1_CONTROLLER = "cpu"


def usable_cores(root: Path = _ROOT) -> int:
    """The number of cores that this process can keep busy, at least 1.

    A quota of two and a half cores counts as two: with three threads, all of them would be stopped together for a sixth
    of the time.

    Args:
        root: where the system's files are looked up.
    """
    bound = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return bound if quota is None else max(1, min(bound, int(quota)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The CPU quota of this process's control groups, in cores; None where there is none.

    Version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`) of control groups are read, as the kernel documents them in
    Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst. A group is also bound by those
    above it, so that the smallest quota counts.
    """
    quotas = [quota for folder in _groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all groups above, as far as they are mounted here."""
    mounts = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            places = [mounts, mounts / "unified"]
        elif _V1_CONTROLLER in controllers.split(","):
            places = [mounts / controllers, mounts / _V1_CONTROLLER]
        else:
            continue
        # A container may see the path of its group on the host, while its own group is mounted as the root.
        inner = PurePosixPath(path.lstrip("/"))
        yield from (place / each for place in places for each in (inner, *inner.parents) if ".." not in each.parts)


def _quota(folder: Path) -> float | None:
    values = [
        *_lines(folder / "cpu.max")[:1],
        " ".join(line for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for line in _lines(folder / name)[:1]),
    ]
    for value in values:
        try:
            quota, period = map(int, value.split())
        except ValueError:  # "max 100000": no quota; or no such file
            continue
        if quota > 0 and period > 0:  # version 1 writes -1 for no quota
            return quota / period
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
