"""Signals end a command wherever it is: real processes, real signals. What they do to a run: test_run.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edgekd.cli._interrupt import ended_by_signals

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
PRELUDE = """
import hashlib, os, signal, subprocess, sys, time
from edgekd.cli import _interrupt
from edgekd.cli._interrupt import ended_by_signals, resumed_by

def ready():
    os.write(1, b"ready\\n")

def native():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
CATCHES_ALL = """
with ended_by_signals(), resumed_by("edgekd run [x].yaml"):
    ready()
    while True:
        try:
            time.sleep(600)
        except BaseException:
            print("caught")
"""
IN_NATIVE_CODE = """
with ended_by_signals(), resumed_by("edgekd run [x].yaml"):
    ready()
    native()
"""
WITH_A_CHILD = """
with ended_by_signals():
    child = subprocess.Popen([sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(600)"])
    child.wait()
    print("the child has ended")
"""


def _default_signals() -> None:
    """As a person's shell starts a program; the suite itself may run in the background, or under nohup."""
    for each in CODES:
        signal.signal(each, signal.SIG_DFL)


@contextmanager
def _started(
    code: str, before: Callable[[], None] = _default_signals, **streams: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed its first line."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = [sys.executable, "-c", PRELUDE + code]
    with subprocess.Popen(command, text=True, preexec_fn=before, **streams) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("code", [CATCHES_ALL, IN_NATIVE_CODE])
def test_code_that_catches_everything_or_never_returns_is_ended_with_the_way_to_resume(code, number):
    with _started(code) as process:
        process.send_signal(number)
        output, shown = process.communicate(timeout=60)
    assert (process.returncode, output) == (CODES[number], "")
    ended = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert shown == f"\nFinished stages and epochs are kept. Continue with:\n  edgekd run [x].yaml\nedgekd: {ended}\n"


@pytest.mark.parametrize("number", CODES)
def test_children_end_with_it_and_are_not_reported_as_crashed(number):
    with _started(WITH_A_CHILD) as process:
        process.send_signal(number)
        # Ends where nobody holds the pipe any more, the child neither.
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (CODES[number], "")


def test_a_signal_to_a_forked_child_ends_the_child_alone():
    code = """
with ended_by_signals():
    ends = []
    for number in (signal.SIGINT, signal.SIGTERM):
        heard, told = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.write(told, b"x")
                time.sleep(600)
            finally:
                os._exit(7)
        os.read(heard, 1)
        os.kill(child, number)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ready()
    print(ends, file=sys.stderr)
"""
    with _started(code) as process:
        _, shown = process.communicate(timeout=60)
    # Newer Pythons warn of a fork beside threads.
    assert (process.returncode, shown.splitlines()[-1]) == (0, f"[7, {-signal.SIGTERM}]")


def test_an_ignored_signal_stays_ignored():
    def ignored() -> None:
        _default_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    code = "with ended_by_signals():\n    ready()\n    sys.stdin.readline()\nprint('done')"
    with _started(code, ignored, stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGINT)
        output, shown = process.communicate("\n", timeout=60)
    assert (process.returncode, output, shown) == (0, "done\n", "")
    with _started(IN_NATIVE_CODE, ignored) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 143 and "ended by SIGTERM" in shown


def test_a_full_pipe_that_nobody_reads_holds_nothing_up():
    read, written = os.pipe()
    os.set_blocking(written, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(written, bytes(4096))
    os.set_blocking(written, True)
    try:
        with _started(IN_NATIVE_CODE, stderr=written) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
    finally:
        os.close(read)
        os.close(written)


def test_the_main_thread_ends_the_process_where_nothing_else_does():
    code = """
_interrupt._LONGEST_SECONDS = 0.01
_interrupt._end = lambda number: native()
with ended_by_signals():
    ready()
    time.sleep(600)
"""
    with _started(code) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_in_a_terminal_the_bar_is_erased_and_the_cursor_is_back():
    ours, theirs = os.openpty()
    try:
        with _started(IN_NATIVE_CODE, stderr=theirs) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        shown = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert shown.startswith(b"\r\x1b[2K\x1b[?25h") and b"interrupted" in shown


def test_afterwards_the_signals_do_what_they_did():
    handlers = [signal.getsignal(each) for each in CODES]
    with ended_by_signals():
        pass
    assert [signal.getsignal(each) for each in CODES] == handlers
