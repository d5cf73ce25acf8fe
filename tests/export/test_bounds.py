"""How low values can be, against operators whose outputs are tried out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper
from paired_graphs import grids, model_of, pair, run

from edgekd.export._pairs import PairedGraph
from edgekd.export.bounds import lowest_of

X = np.linspace(-20, 20, 40_000, dtype=np.float32).reshape(-1, 4)


def _node(operator, *inputs, result="y", **attributes):
    return helper.make_node(operator, list(inputs), [result], **attributes)


def _gated(gate, *rest):
    return [_node("HardSwish", "x", result="h"), _node(gate, "x", result="g"), *rest]


@pytest.mark.parametrize(
    ("nodes", "lowest"),
    [
        ([_node("Relu", "x")], 0.0),
        ([_node("HardSwish", "x")], -0.375),
        ([_node("Sigmoid", "x", result="g"), _node("Mul", "g", "x")], -0.27847),
        (_gated("Sigmoid", _node("Mul", "h", "g")), -0.375),
        (_gated("HardSigmoid", *pair("g", "q", "s"), _node("Mul", "q", "h")), -0.375),
        (_gated("Relu", _node("Concat", "h", "g", axis=0)), -0.375),
        (_gated("Relu", _node("Add", "h", "g")), -0.375),
        ([_node("HardSwish", "x", result="h"), _node("Add", "h", "h")], -0.75),
        ([_node("Clip", "x", "c")], -2.0),
        ([_node("Relu", "x", result="r"), _node("Pad", "r", "p")], 0.0),
        ([_node("Relu", "x", result="r"), _node("Pad", "r", "p", "c")], -2.0),
        ([_node("HardSwish", "x", result="h"), _node("Pad", "h", "p")], -0.375),
        ([_node("Clip", "x", "one", result="r"), _node("Pad", "r", "p", mode="reflect")], 1.0),
        ([_node("Clip", "x", "one", result="r"), _node("Pad", "r", "p")], 0.0),
    ],
)
def test_nothing_falls_below_what_is_proven_and_hardly_anything_lies_above(nodes, lowest):
    constants = {"c": np.float32(-2), "one": np.float32(1), "p": np.array([0, 1, 0, 1])}
    model = model_of(nodes, {**grids(s=1 / 127), **constants}, shape=("n", 4))
    assert lowest_of("y", PairedGraph(model)) == pytest.approx(lowest)
    found = float(run(model, X, as_written=True).min())
    assert found >= lowest - 1e-5


@pytest.mark.parametrize(
    "nodes",
    [
        [_node("Neg", "x")],
        [_node("Clip", "x")],
        [_node("HardSwish", "x", result="h"), _node("Mul", "h", "x")],
        [_node("HardSwish", "x", result="h"), _node("Mul", "h", "h", result="m"), _node("Mul", "m", "c")],
        [_node("Sigmoid", "x", result="g"), _node("Neg", "x", result="n"), _node("Mul", "n", "g")],
        [_node("Relu", "x", result="r"), _node("Add", "r", "x")],
    ],
)
def test_where_nothing_is_proven_it_is_minus_infinity(nodes):
    model = model_of(nodes, {"c": np.float32(-2)}, shape=("n", 4))
    assert lowest_of("y", PairedGraph(model)) == -math.inf


def test_an_average_that_counts_padding_may_be_lower_than_what_it_averages():
    nodes = [_node("Clip", "x", "c", result="a"), _node("AveragePool", "a", kernel_shape=[2, 2])]
    graph = PairedGraph(model_of(nodes, {"c": np.float32(3)}, shape=("n", 1, 4, 4)))
    assert lowest_of("a", graph) == 3.0 and lowest_of("y", graph) == 0.0


def test_a_constant_is_as_low_as_its_lowest_value():
    graph = PairedGraph(model_of([_node("Add", "x", "c")], {"c": np.float32([2, -3])}, shape=("n", 2)))
    assert lowest_of("c", graph) == -3.0
