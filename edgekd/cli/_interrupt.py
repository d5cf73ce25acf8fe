"""Ctrl-C, SIGTERM and SIGHUP end a command at once, whatever it is doing.

An exception in the main thread would not: a long native call delays it, native code turns it into another exception or
aborts, a library may catch it, and after it the interpreter takes seconds to take PyTorch down, many on a busy machine.
Nothing is lost without it: an artifact is renamed into place when it is whole, and a training's state likewise.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Here, not where it is used: the main thread may be stopped within an import, whose lock another import waits for.
import psutil

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_SECONDS = 10.0
_STDERR = 2
_ERASE_BAR_AND_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"

_resume = ""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, each of the signals ends this process and its children, with exit code 128 + its number.

    One that is ignored stays so: SIGHUP under nohup, SIGINT in a script's background job. Main thread only.
    """
    handlers = {each: signal.getsignal(each) for each in _SIGNALS}
    taken = {each: handler for each, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    heard, woken = os.pipe()
    os.set_blocking(woken, False)
    active = True

    def restore(wakeup: int = -1) -> None:
        if active:
            signal.set_wakeup_fd(wakeup)
            for each, handler in taken.items():
                signal.signal(each, handler)

    # A child's signals would be written to its parent's pipe, and end the parent.
    os.register_at_fork(after_in_child=restore)
    threading.Thread(target=_listen, args=(heard, taken), daemon=True).start()
    before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for each in taken:
        signal.signal(each, _stop_main_thread)
    try:
        yield
    finally:
        restore(before)
        active = False
        os.close(woken)


@contextmanager
def resumed_by(command: str) -> Iterator[None]:
    """Within, an end by a signal prints how to go on.

    Args:
        command: the command line that goes on after an interruption.
    """
    global _resume
    _resume = command
    try:
        yield
    finally:
        _resume = ""


def _stop_main_thread(number: int, _: FrameType | None) -> None:
    """Keep the main thread from doing anything more, e.g. report that a child has died, while _listen() ends it all."""
    time.sleep(_LONGEST_SECONDS)
    os._exit(128 + number)


def _listen(heard: int, signals: Collection[int]) -> None:
    """Wait for a signal's number, which the kernel's handler writes even while the main thread is in native code."""
    while received := os.read(heard, 1):
        if received[0] in signals:
            _end(received[0])
    os.close(heard)


def _end(number: int) -> None:
    try:
        _print(_message(number))
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                child.terminate()
    finally:
        os._exit(128 + number)


def _message(number: int) -> str:
    shown = _ERASE_BAR_AND_SHOW_CURSOR if os.isatty(_STDERR) else ""
    if _resume:
        shown += f"\nFinished stages and epochs are kept. Continue with:\n  {_resume}\n"
    name = signal.Signals(number).name
    return shown + ("edgekd: interrupted\n" if number == signal.SIGINT else f"edgekd: ended by {name}\n")


def _print(text: str) -> None:
    """Not through sys.stderr, whose lock the main thread may hold; nor where nobody reads, which would block."""
    with suppress(OSError):
        if select.select([], [_STDERR], [], 1.0)[1]:
            os.write(_STDERR, text.encode(errors="backslashreplace"))
