"""Quantizers → explicit Q/DQ → the real runtime: the same answers, in graphs that their engines can take."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_networks import SmallResidual
from torch import nn

from edgekd.export.int8 import rename_weights, with_constant_scales
from edgekd.export.numerics import real_inputs
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, with_unsigned_activations, without_fused_branches
from edgekd.models import checkpoint as checkpoints
from edgekd.quantization.placement import activation_quantizers, freeze, insert, observe
from edgekd.runtime.preprocess import InputShape


def test_constants_in_the_network_change_nothing(int8_graphs, small_digits):
    network = checkpoints.load(int8_graphs[1])
    inputs = torch.from_numpy(real_inputs(small_digits, 32))
    with torch.no_grad():
        before = network(inputs)
        pairs = with_constant_scales(network)(inputs)
        assert torch.equal(network(inputs), before)  # the network itself was left alone
        for quantizer in activation_quantizers(network).values():
            quantizer.fused = False  # all pairs are exported; the graphs are made of them
        torch.testing.assert_close(pairs, network(inputs), rtol=0, atol=1e-5)


def test_without_optimisation_the_graph_gives_the_networks_own_answers(int8_graphs, small_digits):
    _, calibrated, models = int8_graphs
    inputs = real_inputs(small_digits, 64)
    with torch.no_grad():
        expected = checkpoints.load(calibrated)(torch.from_numpy(inputs)).numpy()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = onnxruntime.InferenceSession(models["int8"].graph, options).run(None, {"input": inputs})[0]
    # A value that lies on the edge between two steps may fall to either side: all but a few images agree closely.
    difference = np.abs(found - expected).max(1) / np.abs(expected).max()
    assert np.median(difference) < 5e-3 and (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_weights_and_their_grids_have_the_names_of_the_network(int8_graphs):
    for model in int8_graphs[2].values():
        names = {tensor.name for tensor in onnx.load(model.graph).graph.initializer}
        assert sum(name.endswith(".weight_scale") for name in names) > 2
        assert not [name for name in names if "parametrizations" in name]


@pytest.mark.parametrize("learned", [False, True])
def test_a_network_trained_through_its_quantizers_answers_in_onnx_runtime_as_in_torch(learned):
    torch.manual_seed(0)
    network = insert(SmallResidual(), learned=learned).model
    inputs, targets = torch.randn(64, 3, 12, 12), torch.randint(0, 5, (64,))
    observe(network)
    network(inputs)
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for step in range(20):
        if step == 15:
            freeze(network)
        torch.nn.functional.cross_entropy(network.train()(inputs), targets).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        expected = network.eval()(inputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    pairs = graph_of(with_constant_scales(network), InputShape(3, 12, 12), 17)
    rename_weights(pairs)
    graph = with_float_weights(without_fused_branches(pairs))
    found = onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"input": inputs.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=0.02 * float(expected.abs().max()))
    names = {tensor.name for tensor in pairs.graph.initializer}
    assert not [name for name in names if "parametrizations" in name or name.endswith("step")]


def _with_tiny_weights() -> nn.Module:
    """One channel of a depthwise convolution and one of the classifier have tiny weights and a bias of 3."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        for layer in (network[2], network[6]):
            layer.weight[0].mul_(1e-8)
            layer.bias[0] = 3.0
    return network


@pytest.mark.parametrize("trained", [False, True])
def test_a_bias_fits_into_the_int32_that_onnx_runtime_makes_of_it(trained):
    """While the scales followed the weights alone, that bias wrapped around."""
    network, inputs = insert(_with_tiny_weights()).model, 0.05 * torch.randn(64, 3, 8, 8)
    observe(network)
    if trained:
        optimiser = torch.optim.SGD(network.parameters(), 1e-3)
        for _ in range(3):
            network(inputs).square().mean().backward()
            optimiser.step()
    with torch.no_grad():
        network(inputs)
        freeze(network)
        expected = network.eval()(inputs).numpy()
    pairs = graph_of(with_constant_scales(network), InputShape(3, 8, 8), 17)
    for graph in (with_float_weights(without_fused_branches(pairs)), with_unsigned_activations(pairs)):
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        np.testing.assert_allclose(session.run(None, {"input": inputs.numpy()})[0], expected, atol=0.02)
