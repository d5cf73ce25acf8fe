"""The graph answers as the network does, in the real runtime."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
import torch

from edgekd.errors import ExportError
from edgekd.export import onnx as exports
from edgekd.export.numerics import real_inputs
from edgekd.models import checkpoint as checkpoints
from edgekd.runtime.backends import open_session
from edgekd.runtime.preprocess import InputShape


def test_the_graph_answers_as_the_network_does_at_any_batch_size(exported, small_digits):
    student, models = exported
    network = checkpoints.load(student)
    session = open_session(models["fp32"].graph)
    inputs = real_inputs(small_digits)
    for size in (1, 3, 100):
        with torch.no_grad():
            expected = network(torch.from_numpy(inputs[:size])).numpy()
        np.testing.assert_allclose(session.bind(inputs[:size])(), expected, atol=1e-4)


def test_the_graph_is_what_it_declares(exported):
    _, models = exported
    for precision, model in models.items():
        graph = onnx.load(model.graph)
        onnx.checker.check_model(graph, full_check=True)
        assert graph.opset_import[0].version == 17 == model.details.opset
        dims = graph.graph.input[0].type.tensor_type.shape.dim
        assert dims[0].dim_param and [d.dim_value for d in dims[1:]] == [3, 16, 16]
        kinds = {weight.data_type for weight in graph.graph.initializer if len(weight.dims) == 4}
        assert kinds == {onnx.TensorProto.FLOAT if precision == "fp32" else onnx.TensorProto.FLOAT16}


def test_no_path_of_the_exporting_machine_ships(exported):
    for model in exported[1].values():
        assert b"site-packages" not in model.graph.read_bytes()


def test_a_network_that_cannot_be_exported_is_one_clear_message():
    printed: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = printed.append  # type: ignore[method-assign]
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    logger.addHandler(handler)

    class Odd(torch.nn.Module):
        def forward(self, x):
            return x[:, 0] if x.sum() > 0 else x[:, 1]

    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        exports.graph_of(Odd().eval(), InputShape(3, 16, 16), 20)
    logger.removeHandler(handler)
    assert not printed
