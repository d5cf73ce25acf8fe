from __future__ import annotations

import platform

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from samples import write_linear_onnx

from edgekd.errors import BackendError
from edgekd.runtime.backends import onnxruntime
from edgekd.runtime.backends.onnxruntime import OrtSession


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", None])
def test_int8_is_of_the_kind_that_the_engine_fuses_on_every_processor(machine):
    assert onnxruntime.BACKEND.activations(machine) == ("float32", "uint8", "float16")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="about ONNX Runtime on x86")
def test_on_x86_an_fp16_graph_is_computed_in_fp32(small_net, tmp_path):
    half = convert_float_to_float16(onnx.load(small_net), keep_io_types=True)
    onnx.save(half, tmp_path / "half.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "runs.onnx"), 3
    ort.InferenceSession(str(tmp_path / "half.onnx"), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "runs.onnx").graph
    types = {each.name: each.data_type for each in graph.initializer}
    weights = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert [types[name] for name in weights] == [TensorProto.FLOAT] * 2
    assert onnxruntime.BACKEND.converted(platform.machine()) == {"float16": "float32"}
    assert not onnxruntime.BACKEND.converted("aarch64")


def test_a_graphs_tensors_and_answers_by_hand(tmp_path):
    weight = np.arange(12 * 2, dtype=np.float32).reshape(12, 2)
    session = OrtSession(write_linear_onnx(tmp_path / "x.onnx", weight, side=2), threads=1)
    (info,) = session.inputs
    assert (info.name, info.shape, info.dtype) == ("input", ("batch", 3, 2, 2), "float32")
    x = np.random.default_rng(0).random((3, 3, 2, 2), np.float32)
    np.testing.assert_allclose(session.bind(x)(), x.reshape(3, 12) @ weight, rtol=1e-5)
    with pytest.raises(BackendError, match="another shape"):
        session.bind(x[:, :2])


def test_a_session_states_that_it_computes_as_written(tmp_path):
    file = write_linear_onnx(tmp_path / "x.onnx", np.ones((12, 2)), side=2)
    engine = onnxruntime.BACKEND.open_as_written(file).engine
    assert engine == f"{OrtSession(file).engine}, Q/DQ as written"


def test_several_inputs_of_other_types_and_without_dimensions(tmp_path):
    """y = words where choose, else the one other word; the second output is not the one that is returned."""
    inputs = [
        helper.make_tensor_value_info("choose", TensorProto.BOOL, ["n"]),
        helper.make_tensor_value_info("words", TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info("other", TensorProto.STRING, []),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.STRING, None) for name in ("y", "same")]
    nodes = [
        helper.make_node("Where", ["choose", "words", "other"], ["y"]),
        helper.make_node("Identity", ["words"], ["same"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "x.onnx")
    session = OrtSession(tmp_path / "x.onnx", threads=1)
    assert [(info.dtype, info.shape) for info in session.inputs] == [("bool", ("n",)), ("str", ("n",)), ("str", ())]
    feed = {"words": np.array(["a", "bcd"]), "choose": np.array([False, True]), "other": np.array("none")}
    assert session.bind(feed)().tolist() == ["none", "bcd"]
    with pytest.raises(BackendError, match="does not have exactly one input"):
        session.bind(feed["words"])
