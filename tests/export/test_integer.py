"""A network of gates, pools and concatenations in ONNX Runtime's int8 kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from paired_graphs import fused, grids, model_of, pair
from torch import Tensor, nn

from edgekd.errors import ExportError
from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_unsigned_activations
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 16, 16)


class _Excitation(nn.Module):
    def __init__(self, channels: int, gate: type[nn.Module]) -> None:
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), gate()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.expand(torch.relu(self.reduce(self.pool(x))))) * x


class _Gates(nn.Module):
    """Every block that has integer forms, as MobileNetV3, EfficientNet and SqueezeNet have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Hardswish())
        self.hard, self.soft = _Excitation(16, nn.Hardsigmoid), _Excitation(16, nn.Sigmoid)
        self.swish = nn.Sequential(nn.Conv2d(16, 16, 1), nn.SiLU())
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.classifier = nn.Sequential(nn.Linear(16, 24), nn.Hardswish(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.hard(self.depthwise(self.stem(x)))
        x = self.soft(self.swish(x)) + x
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        return self.classifier(x.mean((2, 3)))


@dataclass(frozen=True)
class _Case:
    """A graph with int8 pairs, images that it was not calibrated with, and the float network's answers."""

    pairs: onnx.ModelProto
    images: np.ndarray
    exact: np.ndarray


@pytest.fixture(scope="module")
@torch.no_grad()
def case() -> _Case:
    torch.manual_seed(0)
    network = _Gates().eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias)
    images = 2 * torch.randn(64, *SHAPE)
    quantized = insert(network).model
    observe(quantized)
    quantized(images[:32])
    freeze(quantized)
    pairs = graph_of(with_constant_scales(quantized), SHAPE, 17)
    return _Case(pairs, images[32:].numpy(), network(images[32:]).numpy())


def _run(model, images, place, *, as_written=False):
    (place / "model.onnx").write_bytes(model.SerializeToString())
    with OrtSession(place / "model.onnx", threads=1, as_written=as_written) as session:
        return session.bind(images)()


def test_all_of_it_is_computed_in_integers(case, tmp_path):
    before, after = (fused(convert(case.pairs), tmp_path) for convert in (with_unsigned_activations, integer_graph))
    assert before["DequantizeLinear"] > 10 and before["HardSigmoid"] and before["Gemm"]
    # One conversion at the input; the last layer's output is a float.
    assert after.pop("QuantizeLinear") == 1
    assert after.pop("Clip") + after.pop("QLinearAdd") == 3 + 1  # one per hard-swish, and the residual addition
    assert after == {
        "Pad": 1,
        "QLinearConv": 9,
        "QGemm": 2,
        "QLinearGlobalAveragePool": 3,
        "QLinearConcat": 1,
        "Flatten": 1,
        "QLinearMul": 6,
        "QLinearSigmoid": 2,
    }


def test_it_answers_like_the_int8_graph_and_the_kernels_like_the_operators_as_written(case, tmp_path):
    expected = _run(case.pairs, case.images, tmp_path, as_written=True)
    written, found = (_run(integer_graph(case.pairs), case.images, tmp_path, as_written=each) for each in (True, False))
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert np.abs(found - written).max() < 0.05 * np.abs(expected).max()


def test_it_is_closer_to_the_float_network_than_the_symmetric_graph(case, tmp_path):
    symmetric = _run(case.pairs, case.images, tmp_path, as_written=True)
    found = _run(integer_graph(case.pairs), case.images, tmp_path)
    assert np.abs(found - case.exact).mean() < np.abs(symmetric - case.exact).mean()


def test_the_graph_that_it_is_made_from_is_not_changed(case):
    before = case.pairs.SerializeToString()
    integer_graph(case.pairs)
    assert case.pairs.SerializeToString() == before


def test_a_graph_whose_shapes_do_not_fit_together_is_an_export_error():
    nodes = [*pair("x", "a", "s"), helper.make_node("Add", ["a", "c"], ["b"]), *pair("b", "y", "s")]
    with pytest.raises(ExportError, match="no form with uint8 activations\n  found: .*Incompatible dimensions"):
        integer_graph(model_of(nodes, grids(s=0.1) | {"c": np.zeros(3, np.float32)}, shape=("n", 4)))
