from __future__ import annotations

import json
import subprocess
import sys

from edgekd.runtime.child import child_environment, signal_name


def test_a_child_finds_what_this_process_finds_and_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "added"), *sys.path])
    code = "import json, sys; print(json.dumps(sys.path[1:]))"
    printed = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed)[0] == str(tmp_path / "added") and str(tmp_path) not in json.loads(printed)


def test_a_signal_has_a_name_or_its_number():
    assert [signal_name(code) for code in (-11, -4, -40)] == ["SIGSEGV", "SIGILL", "signal 40"]
