"""Each rule of TensorRT's on a graph made for it: refused when broken, quiet when kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import FLOAT, ZERO, model, quantized, rules
from onnx import TensorProto, helper

from edgekd.errors import ExportError, UsageError
from edgekd.export import legality
from edgekd.export.qdq import with_float_weights


def relu(**more) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], **more)


@pytest.mark.parametrize("version", [*legality.VERSIONS, "8.2", "8.6.1", "10.0", "11.99"])
def test_a_symmetric_int8_graph_is_legal_everywhere_and_raises_no_warning(version):
    verdict = legality.check(with_float_weights(quantized()), version)
    assert verdict.legal and verdict.findings == () and verdict.version == version


@pytest.mark.parametrize(("version", "warned"), [("8.6", {"stored-weight"}), ("10.3", set()), ("11.4", set())])
def test_weights_stored_in_int8_are_warned_about_on_tensorrt_8(version, warned):
    assert legality.check(quantized(), version).legal
    assert rules(quantized(), version) == warned


@pytest.mark.parametrize("version", ["8.1", "7.2", "9.0", "12.0", "10", "10.x", "10.3.0.1", "", "-8.6", "8.6 "])
def test_other_versions_are_refused_with_those_that_are_known(version):
    with pytest.raises(UsageError, match="unknown TensorRT version") as caught:
        legality.check(relu(), version)
    assert "10.3" in str(caught.value) and "from 8.2" in str(caught.value)


def test_the_note_states_which_parser_was_read():
    assert legality.check(relu(), "8.6").note.endswith("TensorRT 8.6's parser")
    assert "TensorRT 8.2's parser, carried forward" in legality.check(relu(), "8.3").note
    assert "TensorRT 10.1's parser, carried forward" in legality.check(relu(), "11.4").note


def test_opset():
    assert rules(relu(opset=17), "8.6") == set()
    assert rules(relu(opset=18), "8.6", "error") == {"opset"}
    assert rules(relu(opset=20), "10.3") == set()
    assert rules(relu(opset=21), "10.3", "warning") == {"opset"} and legality.check(relu(opset=21), "11.4").legal
    unsaid = relu()
    del unsaid.opset_import[:]
    assert rules(unsaid, "10.3", "error") == {"opset"}


def test_operators_are_those_of_the_version():
    hardswish = model([helper.make_node("HardSwish", ["x"], ["y"])])
    assert rules(hardswish, "8.2") == {"operator"} and rules(hardswish, "8.4") == set()
    gelu = model([helper.make_node("Gelu", ["x"], ["y"])], opset=20)
    (finding,) = [f for f in legality.check(gelu, "8.6").findings if f.rule == "operator"]
    assert finding.hint == "TensorRT 10.0 and later import it" and finding.node == "y (Gelu)"
    assert rules(gelu, "10.0") == set()
    unknown = legality.check(model([helper.make_node("Det", ["x"], ["y"])]), "11.4")
    assert not unknown.legal and "the newest version that was read" in unknown.findings[0].message


def test_other_domains_need_a_plugin():
    assert rules(model([helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")])) == set()
    assert rules(model([helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")]), level="error") == {"domain"}


@pytest.mark.parametrize(
    "operator", ["QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"]
)
def test_operators_that_compute_in_int8_are_refused_with_the_way_out(operator):
    (finding,) = legality.check(model([helper.make_node(operator, ["x", "x"], ["y"])]), "10.3").findings
    assert (finding.level, finding.rule) == ("error", "int8-operator") and "QDQ" in str(finding.hint)


def test_doubles_and_on_tensorrt_8_long_integers_are_named():
    for dtype, eight, ten in ((FLOAT, set(), set()), (TensorProto.DOUBLE, *({"input-type"},) * 2)):
        assert (rules(relu(dtype=dtype), "8.6"), rules(relu(dtype=dtype), "10.3")) == (eight, ten)
    assert rules(relu(dtype=TensorProto.INT64), "8.6", "warning") == {"input-type"}
    assert rules(relu(dtype=TensorProto.INT64), "10.3") == set()


@pytest.mark.parametrize("dtype", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.UINT32, TensorProto.INT16])
@pytest.mark.parametrize("version", ["8.6", "10.3", "11.4"])
def test_an_input_of_a_type_that_tensorrt_lacks_is_refused(dtype, version):
    verdict = legality.check(relu(dtype=dtype), version)
    assert not verdict.legal and rules(relu(dtype=dtype), version, "error") == {"tensor-type"}
    (finding,) = [each for each in verdict.findings if each.rule == "tensor-type"]
    assert TensorProto.DataType.Name(dtype).lower() in finding.message and finding.node == "x (input)"


def test_a_dynamic_image_size_needs_a_profile():
    assert rules(relu(shape=("batch", 3, "height", 8)), level="warning") == {"dynamic-shape"}
    assert rules(relu(shape=("batch", 3, 8, 8))) == set()


def test_graphs_inside_are_walked_and_see_the_names_around_them():
    def branch(nodes, name):
        value = helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)
        return helper.make_graph(nodes, name, [], [value])

    inside = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "inner")]
    inside.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
    branches = {
        "then_branch": branch(inside, "then"),
        "else_branch": branch([helper.make_node("Relu", ["x"], ["r"])], "else"),
    }
    node = helper.make_node("If", ["yes"], ["y"], **branches)
    constants = {"yes": np.array(True), "s": np.float32(0.1), "z": ZERO}
    assert rules(model([node], constants=constants)) == set()
    findings = legality.check(model([node], constants={**constants, "z": np.uint8(0)}), "10.3").findings
    assert [f.rule for f in findings] == ["zero-point"] * 2 and findings[0].node == "inner (QuantizeLinear)"


def test_functions_of_the_model_are_looked_into():
    body = [helper.make_node("Det", ["a"], ["b"])]
    function = helper.make_function("mine", "Act", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    graph = model([helper.make_node("Act", ["x"], ["y"], domain="mine")], functions=[function])
    assert rules(graph, "10.3", "error") == {"operator"}
    assert rules(graph, "8.6", "error") == {"operator", "functions"}


def test_int8_is_seen():
    assert legality.has_int8(quantized()) and not legality.has_int8(relu())


def test_reading(tmp_path: Path):
    file = tmp_path / "m.onnx"
    onnx.save(quantized(), file, save_as_external_data=True, location="m.data", size_threshold=0)
    assert legality.check(legality.read(file), "10.3").findings == ()
    (tmp_path / "m.data").unlink()
    with pytest.raises(ExportError, match="data file of .* cannot be read"):
        legality.read(file)
    with pytest.raises(ExportError, match="does not exist"):
        legality.read(tmp_path / "other.onnx")
    for content in (b"", b"no onnx at all", b"\x00" * 64):
        file.write_bytes(content)
        with pytest.raises(ExportError, match="cannot be read as ONNX") as caught:
            legality.read(file)
        assert str(caught.value).count("\n") <= 1
