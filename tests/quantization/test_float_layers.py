"""Names of what stays in float, and the network that has no quantizers there."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError
from edgekd.export import legality
from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, without_fused_branches
from edgekd.quantization.float_layers import ON_REQUEST, matching, operations
from edgekd.quantization.placement import folded, freeze, grids, insert, observe
from edgekd.runtime.preprocess import InputShape


class _Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.average, self.fc, self.act = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Hardsigmoid()

    def forward(self, x):
        return x * self.act(self.fc(self.average(x)))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.deep, self.swish = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Hardswish(inplace=True)
        self.gate, self.narrow = _Gate(), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.narrow(self.gate(self.swish(self.deep(x))))
        return self.head(x.mean((2, 3)))


OPERATIONS = (
    "stem",
    "deep",
    "swish",
    "gate.average",
    "gate.fc",
    "gate.act",
    "gate.mul",
    "narrow",
    "add",
    "mean",
    "head",
)
ALL = ("x", "relu", "deep", "swish", "gate_average", "gate_fc", "gate_act", "mul", "narrow", "add", "mean")


def _ready(keep=()) -> tuple[nn.Module, torch.fx.GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    model = _Net().eval()
    network = insert(model, keep).model
    images = torch.randn(8, 3, 16, 16)
    observe(network)
    network(images)
    freeze(network)
    return model, network.eval(), images


def test_operations_are_named_by_the_modules_around_them():
    assert tuple(operations(folded(_Net()))) == OPERATIONS


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["gate"], OPERATIONS[3:7]),
        (["gate.*c", "head"], ("gate.fc", "head")),
        (["*.a*"], ("gate.average", "gate.act")),
        (["add"], ("add",)),
        (["*"], OPERATIONS),
        ([], ()),
    ],
)
def test_patterns_name_operations_and_blocks(patterns, found):
    assert matching(patterns, folded(_Net())) == found


@pytest.mark.parametrize(
    ("pattern", "hint"), [("gate.fd", "did you mean gate.fc"), ("gaet", "did you mean gate"), ("norm", "batch norm")]
)
def test_an_unknown_name_is_refused_with_the_nearest(pattern, hint):
    with pytest.raises(ModelError, match=rf"found: {pattern}(?s:.)*stem, deep(?s:.)*{hint}"):
        matching(["stem", pattern], folded(_Net()))
    with pytest.raises(ModelError, match="is not in the network"):
        insert(_Net(), [pattern])


@pytest.mark.parametrize(
    ("keep", "without", "weights"),
    [
        ((), (), 5),
        (("stem",), ("x",), 4),
        (("head",), ("mean",), 4),
        (("swish",), ("deep",), 5),
        # All that read the swish's values and the gate's own lie in the block.
        (OPERATIONS[3:7], ("swish", "gate_average", "gate_fc", "gate_act"), 4),
        # Others read the values that it reads in int8.
        (("deep",), (), 4),
        (("add",), ("narrow",), 5),
        (OPERATIONS, ALL, 0),
    ],
)
def test_what_only_float_operations_read_has_no_quantizer(keep, without, weights):
    quantized = insert(_Net(), keep)
    assert quantized.placed == tuple(name for name in ALL if name not in without)
    assert sum(parametrize.is_parametrized(module) for module in quantized.model.modules()) == weights
    assert quantized.left_in_float == dict.fromkeys(keep, ON_REQUEST) and quantized.operations == len(OPERATIONS)


def test_an_operation_in_float_reads_unrounded_values():
    _, network, _ = _ready(["deep"])
    reads = {node.name: [source.name for source in node.all_input_nodes] for node in network.graph.nodes}
    assert reads["deep"] == ["relu"] and reads["add"] == ["quantizers_relu", "quantizers_narrow"]


def test_all_in_float_is_the_float_network():
    model, network, images = _ready(OPERATIONS)
    torch.testing.assert_close(network(images), model(images))
    assert grids(network) == {}


@pytest.mark.parametrize(
    "keep", [(), ("stem",), ("head",), ("deep",), OPERATIONS[3:7], ("add",), ("narrow",), ("swish",)]
)
def test_both_graphs_are_legal_and_answer_as_the_network(keep):
    _, network, images = _ready(keep)
    pairs = graph_of(with_constant_scales(network), InputShape(3, 16, 16), 17)
    signed = without_fused_branches(pairs)
    for version in legality.VERSIONS:
        verdict = legality.check(with_float_weights(signed), version)
        assert verdict.legal, verdict.findings
    with torch.no_grad():
        expected = network(images)
    spread = float(expected.abs().max())
    for graph, tolerance in ((signed, 1e-3), (integer_graph(pairs), 0.05)):
        options = onnxruntime.SessionOptions()
        if graph is signed:  # as written
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"input": images.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=tolerance * spread, rtol=0.0)


def test_values_moved_for_both_are_read_on_their_grid():
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(12, 4), nn.Linear(12, 4)

        def forward(self, x):
            x = x.flatten(1)
            return torch.cat([F.relu(self.one(x)), self.two(x)], 1)

    assert insert(Moved(), ["one"]).placed == ("x", "relu", "two")
    assert grids(insert(Moved(), ["one"]).model) == {"flatten": "quantizers.x"}
    both = insert(Moved(), ["one", "two"])
    assert both.placed == ("relu", "two") and grids(both.model) == {}
