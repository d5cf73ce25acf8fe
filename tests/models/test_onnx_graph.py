from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ModelError
from edgekd.models.conversion import Conversion
from edgekd.models.onnx_graph import cost, framed, signature


def convolution(opset: int = 9) -> onnx.ModelProto:
    """3 channels of 6x6 through a 3x3 convolution to 2 channels of 4x4, their means, and a matrix to 5 logits."""
    random = np.random.default_rng(0)
    weights = {
        "filter": random.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "matrix": random.normal(size=(5, 2)).astype(np.float32),
        "bias": np.zeros(5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "filter"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (answer,) = session.run(None, {"input": images})
    return np.asarray(answer)


def test_the_signature_and_the_cost_by_hand() -> None:
    seen = signature(convolution(), 5)
    assert (seen.input, seen.output, seen.shape, seen.channels_last, seen.batch) == (
        "input",
        "logits",
        (3, 6, 6),
        False,
        None,
    )
    assert cost(convolution()) == {"parameters": 54 + 10 + 5, "macs": 2 * 4 * 4 * 27 + 5 * 2}
    with pytest.raises(ModelError, match="no single output"):
        signature(convolution(), 6)


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_a_frame_of_any_opset_converts_before_the_graph(opset: int) -> None:
    model = convolution(opset)
    given = {"image_size": [3, 3], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    own = {"image_size": [6, 6], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    # One level everywhere stays one level, however large the image: -1 is black, 1 is white.
    levels = np.array([-1.0, 0.0, 1.0], np.float32)[:, None, None, None] * np.ones((3, 3, 3, 3), np.float32)
    large = np.array([0.0, 0.5, 1.0], np.float32)[:, None, None, None] * np.ones((3, 3, 6, 6), np.float32)
    put = framed(model, signature(model, 5), [Conversion(given, own)])
    onnx.checker.check_model(put, full_check=True)
    assert np.allclose(run(put, levels), run(model, large), atol=1e-5)


def test_logarithms_of_probabilities_are_finite() -> None:
    model = convolution()
    seen = signature(model, 5)
    nothing = numpy_helper.from_array(np.zeros((5, 2), np.float32), "matrix")
    next(each for each in model.graph.initializer if each.name == "matrix").CopyFrom(nothing)
    answer = run(framed(model, seen, log=True), np.ones((1, 3, 6, 6), np.float32))
    assert np.allclose(answer, np.log(1e-12), rtol=1e-4)
