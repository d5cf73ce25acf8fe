from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgekd.runtime import processor

XEON = (
    "processor\t: {}\nmodel name\t: Intel(R) Xeon(R) Gold 6430\n"
    "flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_tile amx_int8\n"
)
ORIN = "processor\t: {}\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd {}\nCPU part\t: 0xd42\n"


def _system(root: Path, cpuinfo: str | None, board: str | None = None) -> Path:
    for name, text in (("proc/cpuinfo", cpuinfo), ("proc/device-tree/model", board)):
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


def test_a_pc_has_the_instruction_sets_that_the_kernel_lists(tmp_path):
    root = _system(tmp_path, "".join(map(XEON.format, range(2))))
    assert processor.name(root) == "Intel(R) Xeon(R) Gold 6430"
    found = processor.instruction_sets(root)
    assert found == ("amx_int8", "amx_tile", "avx2", "avx512_vnni", "avx512f")
    assert processor.deciding(found) == {"amx_int8", "avx2", "avx512_vnni", "avx512f"}
    assert processor.shown(found) == "amx_int8, avx2, avx512_vnni, avx512f"


def test_of_unequal_cores_only_what_all_have_counts(tmp_path):
    cores = ORIN.format(0, "asimdhp asimddp i8mm") + ORIN.format(1, "asimdhp asimddp")
    root = _system(tmp_path, cores, "Jetson Orin Nano\0")
    assert processor.name(root) == processor.board(root) == "Jetson Orin Nano"
    assert processor.instruction_sets(root) == ("asimddp", "asimdhp")


@pytest.mark.parametrize(("cpuinfo", "sets"), [(None, None), ("processor\t: 0\n", None), ("flags\t: fpu\n", ())])
def test_a_system_that_lists_none_is_not_known_and_one_without_any_has_none(tmp_path, cpuinfo, sets):
    root = _system(tmp_path, cpuinfo)
    assert processor.instruction_sets(root) == sets
    assert processor.name(root) == platform.machine()
    assert processor.deciding(sets) == frozenset()
    assert processor.shown(sets) == ("not known" if sets is None else "none that int8 depends on")
