"""The quantizers that engines leave out: the network computes without those that the graph for TensorRT lacks."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from small_networks import SmallResidual
from torch import nn

from edgekd.export.int8 import with_constant_scales
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import without_fused_branches
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.fused import fused_branches
from edgekd.quantization.placement import activation_quantizers, freeze, insert, observe
from edgekd.runtime.preprocess import InputShape

SIDE = 16


class _Additions(nn.Module):
    """What is added: two convolutions, one and its input twice removed, a pooled value, a value that is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(each, 4, 3, padding=1) for each in (3, 3, 4, 4))
        self.drop, self.pool = nn.Dropout(), nn.MaxPool2d(3, 1, 1)
        self.e, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x) + self.b(x)
        x = self.pool(F.relu(x)) + self.drop(self.c(x))
        y = self.d(x)
        x = y + x + y.mean()
        x = F.relu(self.e(x)) + x
        return self.head(x.mean((2, 3)))


def test_one_branch_of_each_addition_that_ends_in_a_convolution_alone():
    network = insert(_Additions()).model
    assert fused_branches(network) == ["quantizers.a", "quantizers.c"]
    fused = [path for path, quantizer in activation_quantizers(network).items() if quantizer.fused]
    assert fused == ["quantizers.a", "quantizers.c"]


class _ByKeyword(nn.Module):
    def __init__(self, **keywords: float) -> None:
        super().__init__()
        self.a, self.b, self.keywords = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), keywords

    def forward(self, x):
        return torch.add(self.a(x), other=self.b(x), **self.keywords).mean((2, 3))


@pytest.mark.parametrize(("keywords", "fused"), [({}, 1), ({"alpha": 1}, 1), ({"alpha": 0.5}, 0)])
def test_an_addition_with_keywords_is_fused_as_in_the_graph(keywords, fused):
    network = insert(_ByKeyword(**keywords)).model
    observe(network)
    network(torch.randn(4, 3, SIDE, SIDE))
    freeze(network)
    pairs = graph_of(with_constant_scales(network.eval()), InputShape(3, SIDE, SIDE), 17)
    counts = [
        sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
        for graph in (pairs, without_fused_branches(pairs))
    ]
    assert len(fused_branches(network)) == counts[0] - counts[1] == fused


def test_what_is_fused_is_observed_and_not_rounded():
    network = insert(_Additions()).model
    observe(network)
    network(torch.randn(4, 3, SIDE, SIDE))
    quantizer = activation_quantizers(network)["quantizers.c"].eval()
    values = torch.randn(2, 4, 5, 5)
    assert quantizer.scale > 0 and torch.equal(quantizer(values), values)


def _float(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "inverted residual":
        return SmallResidual()
    if name == "additions":
        return _Additions()
    arguments = {"width_mult": 0.35} if name == "torchvision/mobilenet_v2" else {}
    return build(Architecture(model=name, arguments=arguments, num_classes=10, small_stem="cifar" not in name))


@pytest.mark.parametrize(
    "name",
    [
        "inverted residual",
        "additions",
        "cifar/resnet8",  # with padded shortcuts
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("torchvision/resnet18", "torchvision/mobilenet_v2", "timm/mobilenetv3_small_050")
        ),
    ],
)
@torch.no_grad()
def test_the_graph_for_tensorrt_lacks_the_same_and_computes_the_same(name):
    model, inputs = _float(name), torch.randn(8, 3, SIDE, SIDE)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()(inputs)
    network = insert(model).model
    observe(network)
    network(inputs)
    freeze(network)
    expected = network.eval()(inputs).numpy()
    pairs = graph_of(with_constant_scales(network), InputShape(3, SIDE, SIDE), 17)
    graph = without_fused_branches(pairs)
    counts = [sum(node.op_type == "QuantizeLinear" for node in each.graph.node) for each in (pairs, graph)]
    assert counts[0] - counts[1] == len(fused_branches(network)) > 0
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"input": inputs.numpy()})[0]
    # A value that lies on the edge between two steps may fall to either side.
    assert np.median(np.abs(found - expected).max(1)) < 1e-5 * np.abs(expected).max()
