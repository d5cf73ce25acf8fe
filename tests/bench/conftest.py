from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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
def small_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(N, 3, 8, 8) to (N, 4): one convolution, one Gemm."""
    return _net(["batch", 3, 8, 8], tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture(scope="session")
def stubborn_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says that it takes images of any size; only 8 x 8 fits its Gemm."""
    return _net(["batch", 3, "height", "width"], tmp_path_factory.mktemp("onnx") / "stubborn.onnx")


def _net(shape: Sequence[int | str], path: Path) -> Path:
    generator = np.random.default_rng(0)
    weights = {"kernel": (5, 3, 3, 3), "matrix": (5 * 6 * 6, 4)}
    initialisers = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"]),
        helper.make_node("Flatten", ["features"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])
    return _save(nodes, [image], [scores], initialisers, path)


def _save(nodes: list, inputs: list, outputs: list, initialisers: list, path: Path) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
