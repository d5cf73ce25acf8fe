"""Single precision: the graph that every other float variant is derived from."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto

from edgekd.export.numerics import real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.recipe.settings import ExportSettings
from edgekd.runtime.backends import open_session


def test_it_is_the_trained_network_whose_weights_are_written_unchanged(exported):
    student, models = exported
    graph = onnx.load(models["fp32"].graph).graph
    assert {tensor.data_type for tensor in graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    assert models["fp32"].details.source == student.digest
    state = checkpoints.load(student).state_dict()
    (classifier,) = (value.numpy() for value in state.values() if value.shape == (10, 64))
    written = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if list(tensor.dims) == [10, 64]]
    assert len(written) == 1 and np.array_equal(written[0], classifier)


def test_it_agrees_with_pytorch_closer_than_any_other_variant_has_to(exported, small_digits):
    student, models = exported
    inputs = real_inputs(small_digits, 16)
    with torch.no_grad():
        expected = checkpoints.load(student)(torch.from_numpy(inputs)).numpy()
    difference = np.abs(open_session(models["fp32"].graph).bind(inputs)() - expected).max() / np.abs(expected).max()
    assert difference < find("fp32").tolerance.difference
    assert models["fp32"].metrics["numerics"]["reference"] == "PyTorch in float32"
    others = [find(name) for name in ("fp16", "int8", "int8-asym")]
    assert all(find("fp32").tolerance.difference < other.tolerance.difference for other in others)


def test_the_opset_is_that_of_the_settings(exported, small_digits, tmp_path):
    model = find("fp32").export(exported[0], small_digits, ExportSettings(opset=18), tmp_path)
    assert model.details.opset == 18
    assert [entry.version for entry in onnx.load(model.graph).opset_import if entry.domain in ("", "ai.onnx")] == [18]
