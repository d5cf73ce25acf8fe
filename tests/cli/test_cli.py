"""The command line's manners: light, clear, and with the documented exit codes."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
from PIL import Image

from edgekd import plugins
from edgekd.cli import main

HEAVY = "{'torch', 'onnx', 'onnxruntime', 'tensorrt', 'sklearn', 'pydantic', 'numpy', 'rich'}"


def _edgekd(*arguments: str, prelude: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"import sys; {prelude}; sys.argv = ['edgekd', *{arguments!r}]; from edgekd.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("arguments", [("--help",), *((name, "--help") for name in plugins.names("command"))])
def test_help_is_there_and_imports_nothing_heavy(arguments):
    check = f"import atexit; atexit.register(lambda: print('heavy', sorted({HEAVY} & set(sys.modules))))"
    shown = _edgekd(*arguments, prelude=check)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Usage: ") and shown.stdout.rstrip().endswith("heavy []")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("rum",), 2, "did you mean 'run'"),
        (("run",), 2, "Missing argument 'RECIPE'"),
        (("run", "digit"), 2, "did you mean 'digits'"),
        (("run", "digits", "--set", "distill.epochs"), 2, "no key=value"),
        (("run", "digits", "--set", "student.model=torchvision/mobilnet_v3_small"), 2, "mobilenet_v3_small"),
        (("run", "digits", "--set", "bench.devices=[jetsn]"), 2, "unknown device 'jetsn'"),
        (("plugins", "metods"), 2, "did you mean 'method'"),
        (("report", "nowhere"), 1, "nowhere does not exist"),
        (("bench", "nowhere.onnx"), 1, "nowhere.onnx"),
        (("eval", "nowhere", "."), 1, "nowhere does not exist"),
    ],
)
def test_an_error_is_printed_once_with_the_documented_exit_code(arguments, code, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["edgekd", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main() replaces it
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (code, "")
    assert shown.err.count(message) == 1 and "Traceback" not in shown.err


@pytest.mark.parametrize("arguments", [("run", "digits"), ("schema",), ("run", "digits", "--plan")])
def test_a_device_learns_what_a_workstation_is_for(arguments):
    shown = _edgekd(*arguments, prelude="sys.modules['torch'] = None")
    assert shown.returncode == 1
    assert "needs torch, which is not installed here" in shown.stderr
    assert "edgekd[train]" in shown.stderr and "Traceback" not in shown.stderr


def test_a_device_measures_accuracy_without_a_workstations_packages(linear_bundle, tmp_path):
    (tmp_path / "own" / "blue").mkdir(parents=True)
    Image.new("RGB", (8, 8), (0, 0, 200)).save(tmp_path / "own" / "blue" / "a.png")
    none = "sys.modules.update(dict.fromkeys(('torch', 'safetensors', 'onnx')))"
    shown = _edgekd("eval", str(linear_bundle), str(tmp_path / "own"), prelude=none)
    assert shown.returncode == 0 and shown.stdout.startswith("100.00% of 1 image"), shown.stderr


def test_a_reader_that_has_seen_enough_is_not_an_error():
    command = f"{sys.executable} -m edgekd schema | head -c 10"
    shown = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
