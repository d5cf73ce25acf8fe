"""Models that take turns are compared in one process, and what cannot be compared is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.bench.interleaved import compare_latency
from edgekd.errors import BackendError, BenchError, UsageError


def _model(folder: Path, layers: int) -> Path:
    """A chain of matrix products, each as long as the others."""
    weight = numpy_helper.from_array(np.full((512, 512), 1e-3, np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"x{place}", "w"], [f"x{place + 1}"]) for place in range(layers)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 512]) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"{layers}.onnx")
    return folder / f"{layers}.onnx"


def test_a_longer_chain_takes_longer_in_every_figure(tmp_path):
    short, long = _model(tmp_path, 2), _model(tmp_path, 40)
    found = compare_latency([long, short, long], rounds=5, seconds=0.01, threads=1)
    assert found.backend == "onnxruntime" and found.rounds == 5
    assert found.ratios[0] == 1.0 and found.spread[0] == 0.0
    # Twenty times the work; a busy machine does not turn that round.
    assert found.ratios[1] < 0.5 < found.ratios[2] < 2.0
    assert found.milliseconds[1] < found.milliseconds[0]


def test_what_cannot_be_compared_is_refused(tmp_path):
    model = _model(tmp_path, 1)
    with pytest.raises(BenchError, match="is not this machine"):
        compare_latency([model], device="raspberry-pi-5")
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_latency([], rounds=5)
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_latency([model], rounds=0)
    with pytest.raises(UsageError, match="threads"):
        compare_latency([model], threads=0)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError):
        compare_latency([model, tmp_path / "broken.onnx"], rounds=1, seconds=0.01)
