from __future__ import annotations

import numpy as np
from graphs import model
from onnx import TensorProto, helper, numpy_helper

from edgekd.export._scopes import attribute, expanded, opset_of, scopes, title

TWO = numpy_helper.from_array(np.float32(2), "two")


def test_names_are_found_in_the_graph_itself_and_in_those_around_it():
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["inside"])],
        "then",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Constant", [], ["c"], value=TWO),
        helper.make_node("Identity", ["c"], ["same"]),
        helper.make_node("If", ["yes"], ["y"], "choice", then_branch=inner, else_branch=inner),
    ]
    outer, then, other = scopes(model(nodes, constants={"w": np.float32(3), "yes": np.array(True)}).graph)
    assert outer.outer is None and then.outer is other.outer is outer
    assert then.producer("r").op_type == "Relu" and outer.producer("x") is None
    assert (then.constant("w"), outer.constant("same")) == (3, 2)
    assert outer.constant("r") is None and outer.producer("inside") is None
    assert [(node.op_type, place) for node, place in then.consumers["w"]] == [("Add", 1)]
    assert outer.consumers["w"] == []


def test_a_node_is_called_by_its_name_or_by_its_first_output():
    assert title(helper.make_node("Conv", ["x", "w"], ["y"], "stem"), ", 3 channels") == "stem (Conv, 3 channels)"
    assert title(helper.make_node("Relu", ["x"], ["y"])) == "y (Relu)"


def test_attributes_have_their_values_and_texts_are_texts():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4, auto_pad="SAME_UPPER")
    assert (attribute(node, "group"), attribute(node, "auto_pad"), attribute(node, "pads", ())) == (4, "SAME_UPPER", ())


def test_functions_of_the_model_are_written_out():
    twice = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    plain = model([helper.make_node("Relu", ["x"], ["y"])])
    assert expanded(plain) is plain and opset_of(plain) == 17
    whole = expanded(model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], functions=[twice]))
    assert [node.op_type for node in whole.graph.node] == ["Add"] and not whole.functions
