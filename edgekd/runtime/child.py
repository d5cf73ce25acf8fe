"""What processes that edgekd starts have in common."""

from __future__ import annotations

import os
import signal
import sys

from edgekd import plugins


def child_environment() -> dict[str, str]:
    """The environment of a child that finds every module and plugin where this process finds it.

    The current folder, which would be on the child's path as any file's name, is not added.
    """
    return {
        **os.environ,
        **plugins.environment(),
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
    }


def signal_name(code: int) -> str:
    """The name of the signal that ended a child, by its negative return code: "SIGSEGV" for -11."""
    try:
        return signal.Signals(-code).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {-code}"
