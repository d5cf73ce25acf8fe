"""Every tensor's type is checked by TensorRT's version, wherever in a graph it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import FLOAT, model, quantized, rules
from onnx import TensorProto, helper

from edgekd.cli._check import grouped
from edgekd.export import legality

STRING, BF16, UINT8 = TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.UINT8


def through(kind: int) -> list[onnx.NodeProto]:
    """x -> cast to a type -> the same -> y, a float again."""
    return [
        helper.make_node("Cast", ["x"], ["a"], "there", to=kind),
        helper.make_node("Identity", ["a"], ["b"], "between"),
        helper.make_node("Cast", ["b"], ["y"], "back", to=FLOAT),
    ]


def ending_in(kind: int) -> onnx.ModelProto:
    graph = model([helper.make_node("Cast", ["x"], ["y"], "there", to=kind)])
    graph.graph.output[0].type.tensor_type.elem_type = kind
    return graph


def found(graph: onnx.ModelProto, version: str) -> list[tuple[str, str]]:
    findings = [each for each in legality.check(graph, version).findings if each.rule == "tensor-type"]
    assert all(each.level == "error" for each in findings)
    return [(each.node, each.message) for each in findings]


@pytest.mark.parametrize("version", [*legality.VERSIONS, "8.2"])
def test_strings_inside_and_at_the_output_are_refused(version):
    never = "string: TensorRT has no tensors of this type"
    assert found(model(through(STRING)), version) == [("there (Cast)", never), ("between (Identity)", never)]
    assert found(ending_in(STRING), version) == [("y (output)", never)]
    assert not legality.check(ending_in(STRING), version).legal


@pytest.mark.parametrize(
    ("kind", "name", "since", "older", "newer"),
    [
        (BF16, "bfloat16", "9.0", ("8.2", "8.6"), ("10.0", "10.3", "11.4")),
        (UINT8, "uint8", "8.5", ("8.2", "8.4"), ("8.5", "8.6", "10.3")),
    ],
)
def test_types_that_came_with_a_version(kind, name, since, older, newer):
    first = model([helper.make_node("Cast", ["x"], ["y"], to=FLOAT)], dtype=kind)
    for version in older:
        message = f"{name}: TensorRT has tensors of this type only from {since} on"
        assert found(model(through(kind)), version) == [("there (Cast)", message), ("between (Identity)", message)]
        assert found(ending_in(kind), version) == [("y (output)", message)]
        assert found(first, version) == [("x (input)", message)]
    for version in newer:
        for graph in (model(through(kind)), ending_in(kind), first):
            assert found(graph, version) == [] and legality.check(graph, version).legal


def test_types_of_weights_are_none_of_inputs():
    graph = model([helper.make_node("Cast", ["x"], ["y"], to=FLOAT)], dtype=TensorProto.FLOAT8E4M3FN)
    assert found(graph, "10.3") == [("x (input)", "float8e4m3fn: TensorRT has no inputs of this type")]


def test_a_type_that_onnx_does_not_know_is_named_by_its_number():
    graph = model(through(99))
    assert found(graph, "10.3")[0] == ("there (Cast)", "type 99: TensorRT has no tensors of this type")
    graph.graph.input[0].type.tensor_type.elem_type = 98
    assert found(graph, "11.4")[0] == ("x (input)", "type 98: TensorRT has no tensors of this type")


def test_constants_are_looked_at():
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    assert found(model(nodes, constants={"w": np.uint16(1)}), "10.3")[0][0] == "w (constant)"
    text = helper.make_node("Constant", [], ["t"], "text", value_strings=["a"])
    assert found(model([text, *through(TensorProto.FLOAT16)]), "10.3")[0][0] == "text (Constant)"
    half = helper.make_tensor("w", BF16, [1], [1.0])
    held = helper.make_node("Constant", [], ["t"], "held", value=half)
    assert found(model([held, *through(TensorProto.FLOAT16)]), "8.6")[0][0] == "held (Constant)"
    # Read as int32.
    assert found(model([helper.make_node("Gather", ["x", "i"], ["y"])], constants={"i": np.uint8([1])}), "8.2") == []


def test_graphs_inside_are_looked_into():
    def branch(name: str, kind: int) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Cast", ["x"], [f"{name}1"], to=kind),
            helper.make_node("Identity", [f"{name}1"], [name]),
        ]
        back = helper.make_node("Cast", [name], [f"{name}2"], to=FLOAT)
        return helper.make_graph([*nodes, back], name, [], [helper.make_tensor_value_info(f"{name}2", FLOAT, None)])

    graph = model(
        [helper.make_node("If", ["yes"], ["y"], then_branch=branch("t", BF16), else_branch=branch("e", FLOAT))],
        constants={"yes": np.array(True)},
    )
    assert [place for place, _ in found(graph, "8.6")] == ["t1 (Cast)", "t (Identity)"]
    assert found(graph, "10.3") == []


def test_functions_of_the_model_are_looked_into():
    body = [helper.make_node("Cast", ["a"], ["s"], to=STRING), helper.make_node("Cast", ["s"], ["b"], to=FLOAT)]
    function = helper.make_function("mine", "Through", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    graph = model([helper.make_node("Through", ["x"], ["y"], domain="mine")], functions=[function])
    assert rules(graph, "10.3", "error") == {"tensor-type"}


def test_one_type_is_one_message_with_its_places():
    nodes = [helper.make_node("Identity", ["x" if i == 0 else f"a{i - 1}"], [f"a{i}"], f"n{i}") for i in range(20)]
    graph = model(nodes, dtype=BF16)
    graph.graph.output[0].type.tensor_type.elem_type = BF16
    (group,) = grouped([legality.check(graph, version) for version in ("8.2", "8.6", "10.3")])
    assert group.versions == ("8.2", "8.6") and len(group.nodes) == 21


def test_what_quantizers_read_and_write_is_judged_as_quantization():
    unsigned = quantized(x_zero=np.uint8(0))
    assert rules(unsigned, "8.2", "error") == {"zero-point"}


def test_a_graph_whose_types_cannot_be_inferred_is_checked_by_what_it_says():
    graph = model(through(STRING))
    del graph.opset_import[:]
    assert [place for place, _ in found(graph, "10.3")] == ["there (Cast)"]


def test_types_in_a_large_graph_are_inferred_without_its_weights():
    graph = model(
        [helper.make_node("Cast", ["w"], ["h"], to=BF16), helper.make_node("Conv", ["x", "h"], ["y"], "layer")],
        constants={"w": np.zeros((32, 16, 3, 3), np.float32)},
        dtype=BF16,
    )
    graph.graph.node.append(helper.make_node("Relu", ["y"], ["z"], "last"))
    graph.graph.output[0].name, graph.graph.output[0].type.tensor_type.elem_type = "z", BF16
    assert [place for place, _ in found(graph, "8.6")] == ["x (input)", "h (Cast)", "layer (Conv)", "z (output)"]
