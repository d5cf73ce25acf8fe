from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgekd.bench.measurement import Measurement
from edgekd.cli.bench import command
from edgekd.errors import BenchError

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


@pytest.mark.parametrize("shape", ["1x3xa", "", "1,3", "x"])
def test_a_shape_that_is_none(shape):
    result = CliRunner().invoke(command, ["model.onnx", "--input-shape", shape])
    assert result.exit_code == 2
    assert "1x3x224x224" in result.stderr
