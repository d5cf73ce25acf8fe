"""The int8 graph whose activations are uint8, for ONNX Runtime."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ExportError
from edgekd.export import integer, variants
from edgekd.export.legality import check
from edgekd.recipe.settings import ExportSettings


def test_the_asymmetric_graph_is_refused_for_tensorrt(int8_graphs):
    assert not check(onnx.load(int8_graphs[2]["int8-asym"].graph), "10.3").legal


def test_onnx_runtime_computes_every_convolution_of_the_asymmetric_graph_in_int8(int8_graphs, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(int8_graphs[2]["int8-asym"].graph, options)
    before = Counter(node.op_type for node in onnx.load(int8_graphs[2]["int8-asym"].graph).graph.node)
    after = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert after["QLinearConv"] == before["Conv"] > 0 and after["Conv"] == 0


def test_int8_weights_are_stored_as_such_where_the_engine_takes_them(int8_graphs):
    _, _, models = int8_graphs
    sizes = {name: model.graph.stat().st_size for name, model in models.items()}
    assert 0.25 < sizes["int8-asym"] / sizes["int8"] < 0.6


def test_a_graph_that_the_engine_refuses_is_an_export_error(int8_graphs, small_digits, tmp_path, monkeypatch):
    def refused(pairs: onnx.ModelProto) -> onnx.ModelProto:
        """Valid ONNX, but there are no rows of 11 in the images, which the engine finds as it computes them."""
        made = onnx.ModelProto()
        made.CopyFrom(pairs)
        (entry,), (end,) = made.graph.input, made.graph.output
        del made.graph.node[:], made.graph.initializer[:], made.graph.value_info[:]
        made.graph.initializer.append(numpy_helper.from_array(np.array([-1, 11]), "rows"))
        made.graph.node.append(helper.make_node("Reshape", [entry.name, "rows"], [end.name]))
        end.CopyFrom(helper.make_tensor_value_info(end.name, TensorProto.FLOAT, ["batch", "n"]))
        return made

    monkeypatch.setattr(integer, "integer_graph", refused)
    with pytest.raises(ExportError, match="ONNX Runtime"):
        variants.find("int8-asym").export(int8_graphs[2]["int8"], small_digits, ExportSettings(), tmp_path)
