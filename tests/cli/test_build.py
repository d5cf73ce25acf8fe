"""`edgekd build` where it cannot build: one message and no crash. Building itself: tests/runtime/test_engines.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgekd.cli.build import command
from edgekd.errors import BundleError, UnknownNameError
from edgekd.runtime import engines
from edgekd.runtime.backends import tensorrt


@pytest.mark.skipif(tensorrt.BACKEND.available() is None, reason="TensorRT can be used here")
def test_without_tensorrt_or_a_gpu_there_is_one_message(linear_bundle):
    line = [sys.executable, "-m", "edgekd", "build", str(linear_bundle)]
    shown = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert str(tensorrt.BACKEND.available()) in shown.stderr and "Traceback" not in shown.stderr


def test_what_is_not_a_bundle_changed_or_unknown(linear_bundle, tmp_path):
    refused = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(refused.exception, BundleError)
    refused = CliRunner().invoke(command, [str(linear_bundle), "--variant", "fp23"])
    assert isinstance(refused.exception, UnknownNameError) and "did you mean 'fp32'" in str(refused.exception)
    (linear_bundle / "model.fp32.onnx").write_bytes(b"another")
    refused = CliRunner().invoke(command, [str(linear_bundle)])
    assert isinstance(refused.exception, BundleError) and "was changed" in str(refused.exception)


@pytest.mark.parametrize("options", [["--max-batch", "0"], ["--opt-batch", "x"], ["--workspace-mb", "0"]])
def test_numbers_that_are_none(linear_bundle, options):
    assert CliRunner().invoke(command, [str(linear_bundle), *options]).exit_code == 2


def test_the_command_prints_a_table_or_json_and_notes_damaged_timings(device, linear_bundle):
    device()
    (timing,) = engines.build(linear_bundle)[0].path.parents[1].glob("timing-*.cache")
    timing.write_bytes(b"damaged")
    shown = CliRunner().invoke(command, [str(linear_bundle), "--max-batch", "2"], catch_exceptions=False)
    header, row = shown.stdout.splitlines()
    assert header.split() == ["variant", "seconds", "size", "place"] and row.split()[:2] == ["fp32", "built"]
    assert "engine 1 of 1: fp32" in shown.stderr and "was damaged" in shown.stderr
    shown = CliRunner().invoke(command, [str(linear_bundle), "--json"], catch_exceptions=False)
    (record,) = json.loads(shown.stdout)
    assert record["reused"] and record["path"].endswith("model.engine")
