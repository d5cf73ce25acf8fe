"""Engines whose import crashes, raises, ends the process or hangs: packages that really do, first on the path."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from edgekd.errors import BackendError
from edgekd.runtime.backends import find
from edgekd.runtime.importing import require_importable

CRASHES = {
    "SIGSEGV": "install broken_engine again or in another version",
    "SIGILL": "instructions that this CPU lacks",
    "SIGKILL": "out of memory",
}


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A backend whose module has the given text."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(text: str):
        (tmp_path / "broken_engine").mkdir()
        (tmp_path / "broken_engine" / "__init__.py").write_text(text)
        return replace(find("onnxruntime"), title="Broken", version=lambda: "1.2", imports="broken_engine")

    return write


def refusal(backend, **limits) -> BackendError:
    with pytest.raises(BackendError) as caught:
        require_importable(backend, **limits)
    assert "broken_engine" not in sys.modules
    return caught.value


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_is_reported_with_the_signal_and_the_next_step(engine, name):
    error = refusal(engine(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n"))
    assert error.what == "Broken 1.2 cannot be used here"
    assert error.found == f"importing broken_engine crashed: {name}"
    assert CRASHES[name] in error.hint


def test_an_exception_is_reported_with_its_message(engine):
    error = refusal(engine("print('loading')\nraise ImportError('libnvinfer.so.8: cannot open shared object file')\n"))
    assert error.found.endswith("failed: ImportError: libnvinfer.so.8: cannot open shared object file")
    assert error.hint == "install broken_engine again or in another version"


@pytest.mark.parametrize("end", ["os._exit(0)", "raise SystemExit(0)"])
def test_a_module_that_ends_the_process_is_not_imported(engine, end):
    assert refusal(engine(f"import os\n{end}\n")).found.endswith("failed: the process ended with code 0")


def test_a_hang_ends_at_the_limit_even_if_a_process_that_it_started_holds_its_output(engine):
    started = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)'])\n"
    error = refusal(engine(f"{started}time.sleep(600)\n"), seconds=1.0)
    assert error.found == "importing broken_engine did not end within 1 s"


def test_a_module_that_imports_passes_without_being_imported_here(engine):
    require_importable(engine("import atexit, os\natexit.register(os.abort)\n"))
    assert "broken_engine" not in sys.modules


def test_a_backend_that_names_no_module_is_not_tried(engine):
    require_importable(replace(engine("raise ImportError"), imports=None))


def test_the_current_folder_is_neither_imported_from_nor_written_to(engine, tmp_path, monkeypatch):
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "random.py").write_text("raise RuntimeError('imported from the current folder')")
    require_importable(engine("import random\nopen('core', 'w').close()\n"))
    assert os.listdir(place) == ["random.py"]


def test_the_real_engine_can_be_imported():
    assert find("onnxruntime").available() is None
    require_importable(find("onnxruntime"))
