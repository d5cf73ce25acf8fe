"""The reader of stored tensors against the onnx package, on graphs with every place where a tensor may stand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekd.bench.onnx_tensors import stored_tensors

W = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def file(tmp_path):
    """Initialisers, a constant, a branch's own constant, a sparse tensor, a function's constant."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W + 1, "inner")],
    )
    values = helper.make_tensor("values", TensorProto.FLOAT, [2], [7.0, 8.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("at", TensorProto.INT64, [2], [0, 3]), [4])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(W + 2)),
        helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch),
    ]
    constant = helper.make_node("Constant", [], ["f"], value=numpy_helper.from_array(W + 3, "in_function"))
    function = helper.make_function("mine", "Three", [], ["f"], [constant], [helper.make_opsetid("", 17)])
    stored = [
        numpy_helper.from_array(W, "raw"),
        helper.make_tensor("typed", TensorProto.FLOAT, [2, 3], W.ravel()),
        helper.make_tensor("double", TensorProto.DOUBLE, [1], [0.5]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], stored, sparse_initializer=[sparse])
    onnx.save(helper.make_model(graph, functions=[function]), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_every_tensor_is_found_with_its_values(file):
    tensors = stored_tensors(file)
    assert sorted(each.name for each in tensors) == [
        "c",
        "double",
        "in_function",
        "inner",
        "inner",
        "raw",
        "typed",
        "values",
    ]
    found = {each.name: each for each in tensors}
    for name, expected in {"raw": W, "c": W + 2, "inner": W + 1, "in_function": W + 3}.items():
        assert (found[name].type, found[name].dims) == (TensorProto.FLOAT, (2, 3))
        assert np.array_equal(np.frombuffer(found[name].raw, "<f4").reshape(2, 3), expected)
    assert np.array_equal(np.frombuffer(found["typed"].typed[4], "<f4"), W.ravel())
    assert np.array_equal(np.frombuffer(found["double"].typed[10], "<f8"), [0.5])


@pytest.mark.parametrize(
    "content", [b"no model at all", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 20, b"\x3b", b"\x3a\x05\x0a"]
)
def test_a_damaged_file_is_a_value_error(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError):
        stored_tensors(tmp_path / "m.onnx")


def test_an_empty_file_has_none(tmp_path):
    (tmp_path / "m.onnx").touch()
    assert stored_tensors(tmp_path / "m.onnx") == []


def test_graphs_in_graphs_end(tmp_path):
    """A branch in a branch, a thousand times: graph (7 of the model, 6 of an attribute), node (1), attribute (5)."""

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 0x7F:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(1000):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "m.onnx").write_bytes(field(7, graph))
    with pytest.raises(ValueError, match="without an end"):
        stored_tensors(tmp_path / "m.onnx")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_is_another_error(tmp_path_factory, data):
    model = helper.make_model(helper.make_graph([], "g", [], [], [numpy_helper.from_array(W, "w")]))
    content = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "m.onnx"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        stored_tensors(file)
    except ValueError:
        pass
