"""Whether this process's processor is emulated: then its latencies are those of a program, not of any hardware.

Each sign is a fact that no real processor shows; a guest of a hypervisor (KVM, a cloud's machine) shows none of them,
because its instructions run on the processor itself. What has no sign stays unknown: a whole system under QEMU without
KVM whose processor was given the name of a real one. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

_X86 = ("x86_64", "amd64", "i386", "i486", "i586", "i686")
_ARM = ("aarch64", "arm64", "armv6l", "armv7l", "armv8l")
# Lines that the kernel writes to /proc/cpuinfo on one of the two only (arch/x86/kernel/cpu/proc.c, arch/arm*/kernel).
_X86_LINE, _ARM_LINE = "vendor_id", "CPU implementer"
# Processors that only a translator has. QEMU gives its own this name where it computes the instructions itself, and not
# under KVM ("QEMU Virtual CPU", on the other hand, is a model of both); Rosetta does so for its x86 processor.
_EMULATORS = {"QEMU TCG CPU version": "QEMU", "VirtualApple": "Rosetta"}
# The processor "max" of QEMU for ARM. Arm reserves the implementer 0 for software, and QEMU sets the part to "Q".
_QEMU_MAX = ("0x00", "0x051")


def emulation(root: Path = Path("/"), *, machine: str | None = None) -> str | None:
    """The sign by which this process's processor is emulated, in words; None where there is none.

    Args:
        root: the system's files are looked up under it.
        machine: what instructions this process has; None: as platform.machine() reports it.
    """
    if platform.system() == "Darwin" and _translated_on_macos():
        return "macOS reports that Rosetta translates this process"
    cpu = _first_processor(_kernels_own(root / "proc", "cpuinfo"))
    return (
        _by_name(cpu)
        or _of_another_kind(cpu, (machine or platform.machine()).lower())
        or _not_executable(_kernels_own(root / "proc/self", "maps"), _own_files())
    )


def _by_name(cpu: Mapping[str, str]) -> str | None:
    named = f"{cpu.get('vendor_id', '')} {cpu.get('model name', '')}"
    for name, emulator in _EMULATORS.items():
        if name in named:
            return f"the processor is {name}, which {emulator} emulates"
    if (cpu.get(_ARM_LINE, ""), cpu.get("CPU part", "")) == _QEMU_MAX:
        return "the processor is QEMU's own (implementer 0, part Q)"
    return None


def _of_another_kind(cpu: Mapping[str, str], machine: str) -> str | None:
    """The kernel describes the processor that it runs on, and QEMU's user mode leaves that to it in most versions.

    A 32-bit process on a 64-bit kernel is of the same kind. Where another file is mounted over /proc/cpuinfo, so that
    programs find the processor that they expect, this shows nothing.
    """
    if machine in _ARM and _X86_LINE in cpu and _ARM_LINE not in cpu:
        return f"this process is {machine}, the kernel's processor x86"
    if machine in _X86 and _ARM_LINE in cpu:
        return f"this process is {machine}, the kernel's processor ARM"
    return None


def _not_executable(maps: str, own: Collection[str]) -> str | None:
    """Code that a processor runs lies in pages that the kernel has made executable: the others raise a fault.

    An emulator reads the program's code as data and runs what it translates it to, so that QEMU's user mode maps none
    of the program's own pages as executable, on any processor.
    """
    found = [line.split(maxsplit=5) for line in maps.splitlines()]
    permissions = [fields[1] for fields in found if len(fields) == 6 and fields[5].strip() in own]
    if not permissions or any("x" in each for each in permissions):
        return None
    return "the kernel has not made Python's machine code executable: a program such as qemu-user translates it"


def _own_files() -> set[str]:
    """The files whose machine code this process runs: Python, and its modules in machine code."""
    files = {str(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    found = {os.path.realpath(file) for file in files if file.endswith(".so")}
    try:
        found.add(os.readlink("/proc/self/exe"))
    except OSError:  # no Linux
        found.add(os.path.realpath(sys.executable))
    return found


def _first_processor(cpuinfo: str) -> dict[str, str]:
    lines = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _kernels_own(folder: Path, name: str) -> str:
    """A file of /proc as the kernel writes it; empty where it cannot be read.

    By the folder's descriptor, because QEMU's user mode has files of its own for the whole paths /proc/self/maps and
    (from 8.2 on) /proc/cpuinfo: linux-user/syscall.c, do_guest_openat().
    """
    try:
        opened = os.open(folder, os.O_RDONLY)
        try:
            with open(os.open(name, os.O_RDONLY, dir_fd=opened), errors="replace") as stream:
                return stream.read()
        finally:
            os.close(opened)
    except OSError:
        return ""


def _translated_on_macos() -> bool:
    """As Apple documents it for "Determine whether your app is running as a translated binary"."""
    value = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = ctypes.CDLL(None).sysctlbyname(b"sysctl.proc_translated", ctypes.byref(value), ctypes.byref(size), None, 0)
    return not failed and value.value == 1
