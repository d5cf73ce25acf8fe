"""Quantizers → explicit Q/DQ → the real runtime: the same answers, in graphs that their engines can take."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch

from edgekd.export.int8 import with_constant_scales
from edgekd.export.numerics import real_inputs
from edgekd.models import checkpoint as checkpoints


def test_constants_in_the_network_change_nothing(int8_graphs, small_digits):
    network = checkpoints.load(int8_graphs[1])
    inputs = torch.from_numpy(real_inputs(small_digits, 32))
    with torch.no_grad():
        expected = network(inputs)
        torch.testing.assert_close(with_constant_scales(network)(inputs), expected, rtol=0, atol=1e-5)
        assert torch.equal(network(inputs), expected)  # the network itself was left alone


def test_without_optimisation_the_graph_gives_the_networks_own_answers(int8_graphs, small_digits):
    _, calibrated, models = int8_graphs
    inputs = real_inputs(small_digits, 64)
    with torch.no_grad():
        expected = checkpoints.load(calibrated)(torch.from_numpy(inputs)).numpy()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = models["int8"].path / "all-pairs.onnx"
    found = onnxruntime.InferenceSession(graph, options).run(None, {"input": inputs})[0]
    # A value that lies on the edge between two steps may fall to either side: all but a few images agree closely.
    difference = np.abs(found - expected).max(1) / np.abs(expected).max()
    assert np.median(difference) < 5e-3 and (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_weights_and_their_grids_have_the_names_of_the_network(int8_graphs):
    for model in int8_graphs[2].values():
        names = {tensor.name for tensor in onnx.load(model.graph).graph.initializer}
        assert sum(name.endswith(".weight_scale") for name in names) > 2
        assert not [name for name in names if "parametrizations" in name]
