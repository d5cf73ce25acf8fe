from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from samples import write_small_onnx

from edgekd.bench.measure import benchmark
from edgekd.bench.measurement import Measurement

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Writes a model that gives its input back, or the sum of its inputs; shapes and types as asked."""

    def build(*shapes: Sequence[int | str], dtype: int = TensorProto.FLOAT, name: str = "model.onnx") -> Path:
        inputs = [helper.make_tensor_value_info(f"in{i}", dtype, shape) for i, shape in enumerate(shapes)]
        total = [f"in{i}" for i in range(len(shapes))]
        nodes = [helper.make_node("Sum" if len(total) > 1 else "Identity", total, ["out"])]
        output = helper.make_tensor_value_info("out", dtype, None)
        return _save(nodes, inputs, [output], [], tmp_path_factory.mktemp("onnx") / name)

    return build


@pytest.fixture(scope="session")
def stubborn_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says that it takes images of any size; only 8 x 8 fits its Gemm."""
    return write_small_onnx(tmp_path_factory.mktemp("onnx") / "stubborn.onnx", ["batch", 3, "height", "width"])


@pytest.fixture(scope="session")
def measured(small_net: Path) -> list[Measurement]:
    """The small network at two batch sizes on one thread."""
    return benchmark(small_net, batch_sizes=(1, 4), threads=1, seconds=0.02, warmup_seconds=0.005)


def _save(nodes: list, inputs: list, outputs: list, initialisers: list, path: Path) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
