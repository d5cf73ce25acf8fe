"""Quantizers → explicit Q/DQ → the real runtime: the same answers, in graphs that their engines can take."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from small_networks import SmallResidual
from torch import nn

from edgekd.export.int8 import rename_weights, with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.numerics import real_inputs
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, without_fused_branches
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


def _samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of five classes in so much noise that many answers are close."""
    patterns = F.interpolate(torch.randn(5, 3, 4, 4, generator=_seeded(7)), size=12, mode="bilinear")
    generator = _seeded(seed)
    targets = torch.randint(0, 5, (count,), generator=generator)
    return patterns[targets] + 1.3 * torch.randn(count, 3, 12, 12, generator=generator), targets


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _trained(network: nn.Module, steps: int, rate: float) -> nn.Module:
    optimiser = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    for step in range(steps):
        inputs, targets = _samples(64, 1000 + step)
        F.cross_entropy(network.train()(inputs), targets).backward()
        optimiser.step()
        optimiser.zero_grad()
    return network.eval()


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    torch.manual_seed(0)
    return _trained(SmallResidual(), 60, 0.1)


@pytest.mark.parametrize("learned", [False, True])
def test_both_graphs_of_a_network_trained_through_its_quantizers_answer_as_it_does(residual, learned):
    """On 2,000 images: the symmetric graph as written on 99.9 %, the top-1 of both within 0.2 points."""
    network = insert(residual, learned=learned).model
    observe(network)
    network(_samples(256, 1)[0])
    if not learned:
        freeze(network)
    network = _trained(network, 30, 0.01)
    inputs, targets = _samples(2000, 2)
    with torch.no_grad():
        logits = network(inputs).numpy()
    expected, wanted = logits.argmax(1), targets.numpy()
    assert 0.8 < (expected == wanted).mean() < 0.99
    pairs = graph_of(with_constant_scales(network), InputShape(3, 12, 12), 17)
    rename_weights(pairs)
    assert not [tensor.name for tensor in pairs.graph.initializer if tensor.name.endswith("step")]
    symmetric = _logits(with_float_weights(without_fused_branches(pairs)), inputs, as_written=True)
    assert (symmetric.argmax(1) == expected).mean() >= 0.999
    # Without an influence on the answers: a value between two steps may fall to either side.
    assert np.median(np.abs(symmetric - logits).max(1)) < 1e-4 * np.abs(logits).max()
    asymmetric = _logits(integer_graph(pairs), inputs, as_written=False)
    for found in (symmetric, asymmetric):
        right = int((found.argmax(1) == wanted).sum())
        assert abs(right - int((expected == wanted).sum())) <= 0.002 * len(wanted)


def _logits(graph: onnx.ModelProto, inputs: torch.Tensor, *, as_written: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return session.run(None, {"input": inputs.numpy()})[0]


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
    for graph in (with_float_weights(without_fused_branches(pairs)), integer_graph(pairs)):
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        np.testing.assert_allclose(session.run(None, {"input": inputs.numpy()})[0], expected, atol=0.02)
