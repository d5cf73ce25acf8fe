"""The files are those that real systems were seen to have: QEMU 7.2 and 10.0 in user mode, PCs, boards and guests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.bench.emulation import emulation

EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse hypervisor\n\n"
A76 = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
QEMU_MAX = "processor\t: 0\nmodel name\t: ARMv8 Processor rev 0 (v8l)\nCPU implementer\t: 0x00\nCPU part\t: 0x051\n\n"
KVM = EPYC.replace("AMD EPYC", "QEMU Virtual CPU version 2.5+")
TCG = EPYC.replace("AMD EPYC", "QEMU TCG CPU version 2.5+")
ROSETTA = "processor\t: 0\nvendor_id\t: VirtualApple\nmodel name\t: VirtualApple @ 2.50GHz processor\n\n"
PYTHON = os.readlink("/proc/self/exe")
# The same file as the kernel lists it, on a processor that runs it and under QEMU in user mode.
NATIVE = f"""\
55ff001b2000-55ff001b3000 r--p 00000000 fe:00 26723                      {PYTHON}
55ff001b3000-55ff001b4000 r-xp 00001000 fe:00 26723                      {PYTHON}
7f11a0000000-7f11a0021000 rw-p 00000000 00:00 0
"""
TRANSLATED = f"""\
00400000-00916000 r--p 00000000 fe:00 2302673                            {PYTHON}
0092f000-00930000 r--p 0051f000 fe:00 2302673                            {PYTHON}
5500801000-5500828000 r--p 00000000 fe:00 2222411                        /lib/aarch64-linux-gnu/ld-linux-aarch64.so.1
7f0000000000-7f0000400000 r-xp 00000000 fe:00 1                          /usr/libexec/qemu-binfmt/aarch64-binfmt-P
"""


def system(root: Path, *, cpuinfo: str = "", maps: str = "") -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "cpuinfo").write_text(cpuinfo)
    (root / "proc" / "self" / "maps").write_text(maps)
    return root


def test_the_processor_of_the_tests_is_real():
    assert emulation() is None


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_system_without_these_files_has_no_sign(tmp_path, machine):
    assert emulation(tmp_path, machine=machine) is None


@pytest.mark.parametrize(
    ("machine", "cpuinfo"),
    [("x86_64", EPYC), ("AMD64", EPYC), ("x86_64", KVM), ("aarch64", A76), ("armv7l", A76), ("riscv64", "hart\t: 0\n")],
)
def test_real_processors_and_guests_of_a_hypervisor_have_no_sign(tmp_path, machine, cpuinfo):
    assert emulation(system(tmp_path, cpuinfo=cpuinfo, maps=NATIVE), machine=machine) is None


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "sign"),
    [
        ("aarch64", EPYC, "this process is aarch64, the kernel's processor x86"),
        ("armv7l", EPYC, "this process is armv7l, the kernel's processor x86"),
        ("x86_64", A76, "this process is x86_64, the kernel's processor ARM"),
        ("x86_64", TCG, "the processor is QEMU TCG CPU version, which QEMU emulates"),
        ("x86_64", ROSETTA, "the processor is VirtualApple, which Rosetta emulates"),
        ("aarch64", QEMU_MAX, "the processor is QEMU's own (implementer 0, part Q)"),
    ],
)
def test_a_processor_that_cannot_be_real_is_named(tmp_path, machine, cpuinfo, sign):
    assert emulation(system(tmp_path, cpuinfo=cpuinfo, maps=NATIVE), machine=machine) == sign


def test_code_that_the_kernel_would_not_run_is_translated_whatever_the_processor_calls_itself(tmp_path):
    """With ARM's text mounted over /proc/cpuinfo, as ONNX Runtime needs it there."""
    sign = emulation(system(tmp_path, cpuinfo=A76, maps=TRANSLATED), machine="aarch64")
    assert sign is not None and "has not made Python's machine code executable" in sign


def test_a_map_without_pythons_own_files_shows_nothing(tmp_path):
    others = "".join(line for line in TRANSLATED.splitlines(keepends=True) if PYTHON not in line)
    assert emulation(system(tmp_path, cpuinfo=A76, maps=others), machine="aarch64") is None


def test_it_needs_the_standard_library_only():
    """So that it can be tried where nothing is installed."""
    import edgekd.bench.emulation as module

    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['emulation']())"
    command = [sys.executable, "-I", "-S", "-c", code, str(module.__file__)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"
