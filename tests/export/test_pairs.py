from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from paired_graphs import grids, model_of, pair, run

from edgekd.export._pairs import PairedGraph


@pytest.fixture
def graph() -> PairedGraph:
    """x → pair → Relu → pair → y, and a constant that nothing reads."""
    nodes = [*pair("x", "a", "s"), helper.make_node("Relu", ["a"], ["r"]), *pair("r", "y", "s")]
    return PairedGraph(model_of(nodes, {**grids(s=0.5), "unread": np.float32(1)}, shape=("n", 2)))


def test_pairs_are_found_from_both_sides(graph):
    first, last = graph.pairs()
    assert (first.source, first.steps, first.result) == ("x", "a_q", "a")
    assert graph.pair_of("y") == last == graph.pair_after("r")
    assert graph.pair_of("r") is None and graph.pair_of("x") is None and graph.pair_after("a") is None
    assert graph.scale_and_zero(first.quantize) == (0.5, 0)


def test_an_output_of_the_graph_is_not_private(graph):
    assert graph.is_private("a") and not graph.is_private("y")
    graph.insert(graph.nodes("Relu")[0], "Neg", ["a"], "other")
    assert not graph.is_private("a") and graph.pair_after("x") is not None


def test_new_nodes_stand_before_their_reader_and_get_free_names(graph):
    relu = graph.nodes("Relu")[0]
    made = graph.insert(relu, "Neg", ["a"], "r")
    graph.set_input(relu, 0, graph.insert_pair(relu, made, 0.25, 128, "a"))
    assert made == "r_" and relu.input[0] == "a_"
    found = graph.finish()
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_array_equal(run(found, np.float32([[-3, 3]])), np.float32([[3, 0]]))


def test_a_node_becomes_another_one_and_what_nobody_reads_is_dropped(graph):
    graph.become(graph.nodes("Relu")[0], "LeakyRelu", ["a"], alpha=0.5)
    model = graph.finish()
    np.testing.assert_array_equal(run(model, np.float32([[-4, 4]])), np.float32([[-2, 4]]))
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["s_s", "s_z"]


def test_the_given_model_is_not_changed(graph):
    model = graph.model
    before = model.SerializeToString()
    own = PairedGraph(model)
    own.remove(*own.nodes("Relu"))
    own.put_on(next(own.pairs()), own.grid("g", 1.0, 0))
    assert model.SerializeToString() == before != own.model.SerializeToString()
