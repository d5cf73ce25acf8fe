"""The processor: its name, and those of its instruction sets that decide how fast and how exactly int8 is computed."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_ROOT = Path("/")
# An engine has a kernel of its own for each of these: with products of bytes added in 16 bits (AVX2, where they may
# saturate), added in 32 bits (VNNI, dot product) or in tiles (AMX, i8mm).
INT8 = frozenset({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
# Those that are recorded, by their names in the kernel: also what half precision depends on.
_RECORDED = INT8 | {"amx_tile", "amx_bf16", "avx512_bf16", "sve", "bf16", "fphp", "asimdhp"}
_LABELS = ("flags", "Features")


def name(root: Path = _ROOT) -> str:
    """The processor's name, on ARM boards that of the board; the system's files are looked up under `root`."""
    return next(iter(_values(root, ("model name",))), None) or board(root) or platform.machine()


def board(root: Path = _ROOT) -> str | None:
    """The board's name in the device tree; None where there is none."""
    return _text(root / "proc/device-tree/model")


def instruction_sets(root: Path = _ROOT) -> tuple[str, ...] | None:
    """The recorded instruction sets that all cores have, sorted, by the kernel's names; None: not known.

    Only Linux on x86 and ARM names them, in /proc/cpuinfo.
    """
    cores = [set(line.split()) for line in _values(root, _LABELS)]
    return tuple(sorted(_RECORDED.intersection(*cores))) if cores else None


def deciding(sets: Iterable[str] | None) -> frozenset[str]:
    """Those of some instruction sets that int8 depends on; none of those that are not known."""
    return INT8.intersection(sets or ())


def shown(sets: Iterable[str] | None) -> str:
    """For people: "avx2, avx512_vnni", "none that int8 depends on" or "not known"."""
    return "not known" if sets is None else ", ".join(sorted(deciding(sets))) or "none that int8 depends on"


@cache  # the kernel asks every core for it, of which servers have hundreds
def _values(root: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The values in /proc/cpuinfo under one of these labels, one for each core."""
    pairs = (line.partition(":") for line in (_text(root / "proc/cpuinfo") or "").splitlines())
    return tuple(value.strip() for label, _, value in pairs if label.strip() in labels)


def _text(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None
