from __future__ import annotations

import numpy as np
import pytest
from samples import write_linear_onnx

from edgekd.errors import BackendError
from edgekd.export.fusion import Fusion, fusion_of
from edgekd.export.preference import FUSED
from edgekd.runtime import backends

OPTIMIZER = backends.find("onnxruntime").optimizer


def test_the_asymmetric_graph_is_fused_and_the_symmetric_one_is_not(int8_graphs):
    found = {name: fusion_of(model.graph, OPTIMIZER) for name, model in int8_graphs[2].items()}
    # The mean and the classifier stay in float, with the padded shortcuts of ResNet-8.
    assert found["int8-asym"].share >= FUSED > 0.5 > found["int8"].share
    assert found["int8-asym"].quantized > found["int8-asym"].dequantized
    # At least the input, and the output of each operator in float, is converted; more where most of them are.
    assert found["int8"].conversions > found["int8-asym"].conversions > found["int8-asym"].dequantized


def test_a_float_graph_has_no_operators_on_quantized_values(tmp_path):
    assert fusion_of(write_linear_onnx(tmp_path / "x.onnx", np.ones((12, 2)), side=2), OPTIMIZER) == Fusion(0, 0, 0)
    assert Fusion(0, 0, 0).share == 0.0 and Fusion(3, 1, 9).share == 0.75 and Fusion(3, 1, 9).operators == 4


def test_a_file_that_the_engine_refuses_is_reported(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match="ONNX Runtime cannot load"):
        fusion_of(tmp_path / "x.onnx", OPTIMIZER)
