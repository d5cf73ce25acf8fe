from __future__ import annotations

import json
import os
import sys

import pytest
from click.testing import CliRunner
from plugin_files import edgekd_command

from edgekd.cli._doctor import _gpu, examine
from edgekd.cli.doctor import command


def test_doctor_finds_what_is_installed():
    shown = CliRunner().invoke(command, ["--json"])
    assert shown.exit_code == 0, shown.stderr
    findings = {finding["what"]: finding for finding in json.loads(shown.stdout)}
    assert findings["onnxruntime"]["ok"] and findings["workstation"]["ok"]
    assert all(finding["hint"] is None for finding in findings.values() if finding["ok"])


def test_the_instruction_sets_that_int8_depends_on_are_shown(monkeypatch):
    for sets, shown in ((("avx2", "avx512_vnni", "sve"), "int8: avx2, avx512_vnni"), (None, "int8: not known")):
        monkeypatch.setattr("edgekd.runtime.processor.instruction_sets", lambda sets=sets: sets)
        (finding,) = [each for each in examine() if each.what == "processor"]
        assert finding.found.endswith(shown) and finding.ok == (sets is not None) == (finding.hint is None)


def test_an_engine_that_crashes_is_not_called_usable(tmp_path):
    """As ONNX Runtime does on import where /proc/cpuinfo is another processor's."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    shown = edgekd_command("doctor", PYTHONPATH=os.pathsep.join((str(tmp_path), *filter(None, sys.path))))
    assert shown.returncode == 0 and not shown.stderr
    assert (
        "– onnxruntime" in shown.stdout
        and "cannot be used here: importing onnxruntime crashed: SIGSEGV" in shown.stdout
    )
    assert "install onnxruntime again or in another version" in shown.stdout


NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (builder@)  Tue Aug 11\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "no NVIDIA driver: training runs on the CPU"),
        ({"proc/driver/nvidia/version": NVRM}, "NVIDIA GPU, driver 580.159.04"),
        (
            {
                "proc/driver/nvidia/version": NVRM,
                "proc/driver/nvidia/gpus/0000:00:06.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 42\n",
            },
            "NVIDIA H100 80GB HBM3, driver 580.159.04",
        ),
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.0\n"}, "Jetson, R36 (release), REVISION: 4.0"),
    ],
    ids=["none", "driver", "H100", "Jetson"],
)
def test_the_gpu_is_named_with_its_driver(files, found, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _gpu(tmp_path).found == found
