"""Imports an engine in a process of its own: its native libraries may crash, which nothing in a process survives."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from edgekd.errors import BackendError
from edgekd.runtime.backends import Backend
from edgekd.runtime.child import child_environment, signal_name

# Imports take a tenth of a second on a PC, and tens of seconds from an SD card or under an emulator.
_SECONDS = 60.0
# Not 0, with which a module may end the process itself. By _exit, because crashing at the end of Python harms no work.
_IMPORTED = 42
_CODE = f"import importlib, os, sys; importlib.import_module(sys.argv[1]); os._exit({_IMPORTED})"
_LENGTH = 300


def require_importable(backend: Backend, *, seconds: float = _SECONDS) -> None:
    """Import a backend's engine in a fresh process, which takes as long as the import.

    Args:
        backend: one that is available; where it does not name a module, nothing is tried.
        seconds: how long the import may take.

    Raises:
        BackendError: the import crashed, raised an exception, ended the process or took longer.
    """
    module = backend.imports
    if module is None:
        return
    # Files that a crash leaves behind (core dumps) vanish with the folder. Output goes to a file, because a pipe would
    # be waited for until processes that the module started close it too.
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w+") as output:
        try:
            code = subprocess.run(
                [sys.executable, "-c", _CODE, module],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                cwd=folder,
                env=child_environment(),
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        written = output.read().strip().splitlines()
    if code == _IMPORTED:
        return
    found, hint = _reason(module, code, written[-1][:_LENGTH] if written else "", seconds)
    named = f"{backend.title} {backend.version() or ''}".rstrip()
    raise BackendError(f"{named} cannot be used here", found=found, hint=hint)


def _reason(module: str, code: int | None, last: str, seconds: float) -> tuple[str, str]:
    """What happened, and what to do; `code` is the process's return code, None where it was stopped."""
    other = f"install {module} again or in another version"
    trace = f"`python -X faulthandler -c 'import {module}'` shows where"
    if code is None:
        return f"importing {module} did not end within {seconds:g} s", f"{other}; {trace} with Ctrl-C"
    if code >= 0:
        return f"importing {module} failed: {last or f'the process ended with code {code}'}", other
    name = signal_name(code)
    found = f"importing {module} crashed: {name}"
    if name == "SIGKILL":
        return found, f"the system may have run out of memory: free some, then try again; otherwise {other}"
    if name == "SIGILL":
        return found, (
            f"it has instructions that this CPU lacks: install a {module} for this {platform.machine()} CPU; "
            "under an emulator, emulate a newer CPU, with a /proc/cpuinfo that fits it"
        )
    return found, f"{other}; {trace}; under an emulator, /proc/cpuinfo must show the emulated CPU"
