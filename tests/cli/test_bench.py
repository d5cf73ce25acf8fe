from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import psutil
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from edgekd.bench.measurement import Measurement
from edgekd.cli.bench import command
from edgekd.errors import BenchError, UsageError
from edgekd.runtime.cores import usable_cores

QUICK = ["--seconds", "0.02", "--warmup", "0", "--threads", "1"]


def test_json_is_a_list_of_records_and_nothing_else(small_net):
    result = CliRunner().invoke(command, [str(small_net), "--batch", "1", "--batch", "2", "--json", *QUICK])
    assert result.exit_code == 0
    records = [Measurement.model_validate(value) for value in json.loads(result.stdout)]
    assert [entry.batch_size for entry in records] == [1, 2]


def test_the_table_has_one_line_per_record(small_net):
    result = CliRunner().invoke(command, [str(small_net), *QUICK])
    assert result.exit_code == 0
    title, header, row, *_ = result.stdout.splitlines()
    assert "onnxruntime" in title and "threads 1" in title
    assert [word in header for word in ("p50", "p99", "inputs/s", "load", "first", "peak")] == [True] * 6
    assert row.split()[:2] == ["small.onnx", "1"]


def test_our_errors_pass_through_to_the_group(tmp_path):
    result = CliRunner().invoke(command, [str(tmp_path / "gone.onnx")])
    assert isinstance(result.exception, BenchError)


@pytest.mark.parametrize("shape", ["1x3xa", "", "1,3", "x", "image=", "=", "a=1x-3", "1x" + "9" * 5000])
def test_a_shape_that_is_none(shape):
    result = CliRunner().invoke(command, ["model.onnx", "--input-shape", shape])
    assert result.exit_code == 2
    assert "1x3x224x224" in result.stderr


def test_two_shapes_for_one_input():
    result = CliRunner().invoke(command, ["model.onnx", "--input-shape", "a=1x2", "--input-shape", "a=1x3"])
    assert result.exit_code == 2 and "two shapes for the input 'a'" in result.stderr


def test_shapes_by_name_and_values_from_a_file(tmp_path):
    """Names of inputs may have any characters."""
    names = ["a=b:0", "x y"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"]) for name in names]
    output = helper.make_tensor_value_info("sum", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Add", names, ["sum"])], "g", inputs, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    given = [word for name in names for word in ("--input-shape", f"{name}=1x5")]
    shown = CliRunner().invoke(command, [str(tmp_path / "m.onnx"), *given, "--batch", "2", *QUICK])
    assert shown.exit_code == 0
    assert "input: a=b:0 (2, 5) float32 (random: normal" in shown.stdout and "x y (2, 5) float32" in shown.stdout
    np.savez(tmp_path / "in.npz", **{name: np.ones((3, 4), np.float32) for name in names})
    result = CliRunner().invoke(command, [str(tmp_path / "m.onnx"), "--input", str(tmp_path / "in.npz"), *QUICK])
    assert "input: a=b:0 (3, 4) float32, x y (3, 4) float32, from in.npz" in result.stdout


def test_more_threads_than_cores(small_net):
    result = CliRunner().invoke(command, [str(small_net), "--threads", "999"])
    assert isinstance(result.exception, UsageError)
    cores = usable_cores()
    assert f"found: {cores} usable of {os.cpu_count()}" in str(result.exception) and "999" in str(result.exception)


def test_a_measuring_process_does_not_outlive_the_command(small_net):
    command = [sys.executable, "-m", "edgekd", "bench", str(small_net), "--seconds", "600"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (workers := psutil.Process(process.pid).children()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 143
    assert shown.splitlines()[-1] == "edgekd: ended by SIGTERM"
    assert psutil.wait_procs(workers, timeout=60)[1] == []
