"""Each rule of TensorRT's on a graph made for it: refused when broken, quiet when kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ExportError, UsageError
from edgekd.export import legality
from edgekd.export.qdq import with_float_weights

FLOAT = TensorProto.FLOAT
ZERO, SCALE = np.zeros((), np.int8), np.float32(0.1)


def model(nodes, *, opset=17, constants=None, shape=("batch", 16, 8, 8), dtype=FLOAT, functions=()) -> onnx.ModelProto:
    """A model from `x` to the last node's output."""
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def quantized(
    operator="Conv", weight=(32, 16, 3, 3), *, axis=0, zero=None, x_scale=SCALE, x_zero=ZERO, opset=17, **more
):
    """x -> Q -> DQ -> one layer with an int8 weight behind a DQ, one scale an output channel."""
    scales = np.full(weight[axis], 0.1, np.float32)
    constants = {
        "w8": np.ones(weight, np.int8),
        "ws": scales,
        "wz": np.zeros(scales.shape, np.int8) if zero is None else zero,
        "xs": x_scale,
        **({} if x_zero is None else {"xz": x_zero}),
    }
    pair = ["xs", "xz"][: 1 if x_zero is None else 2]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *pair], ["x8"], "q"),
        helper.make_node("DequantizeLinear", ["x8", *pair], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wd"], "dqw", axis=axis),
        helper.make_node(operator, ["xd", "wd"], ["y"], "layer", **more),
    ]
    return model(nodes, constants=constants, opset=opset, shape=("batch", *[16, 8, 8][: len(weight) - 1]))


def rules(graph, version="10.3", level=None):
    return {found.rule for found in legality.check(graph, version).findings if level in (None, found.level)}


def relu(**more) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], **more)


@pytest.mark.parametrize("version", [*legality.VERSIONS, "8.2", "8.6.1", "10.0", "11.99"])
def test_a_symmetric_int8_graph_is_legal_everywhere_and_raises_no_doubt(version):
    verdict = legality.check(with_float_weights(quantized()), version)
    assert verdict.legal and verdict.findings == () and verdict.version == version


@pytest.mark.parametrize(("version", "doubts"), [("8.6", {"stored-weight"}), ("10.3", set()), ("11.4", set())])
def test_weights_stored_in_int8_are_in_doubt_on_tensorrt_8(version, doubts):
    assert legality.check(quantized(), version).legal
    assert rules(quantized(), version) == doubts


@pytest.mark.parametrize("version", ["8.1", "7.2", "9.0", "12.0", "10", "10.x", "10.3.0.1", "", "-8.6", "8.6 "])
def test_other_versions_are_refused_with_those_that_are_known(version):
    with pytest.raises(UsageError, match="unknown TensorRT version") as caught:
        legality.check(relu(), version)
    assert "10.3" in str(caught.value) and "from 8.2" in str(caught.value)


def test_the_note_says_which_parser_was_read():
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_zero": None}, "reads that as int8, ONNX Runtime as uint8"),
        ({"x_zero": np.zeros((), np.uint8)}, "the zero point is uint8"),
        ({"x_zero": np.int8(3)}, "not zero"),
        ({"zero": np.array([0] * 31 + [1], np.int8)}, "not zero"),
    ],
)
def test_zero_points_are_int8_zeros_written_out(change, message):
    findings = legality.check(quantized(**change), "10.3").findings
    assert {(found.level, found.rule) for found in findings} == {("error", "zero-point")}
    assert all(message in found.message for found in findings)


def test_zero_points_and_scales_are_constants():
    graph = quantized()
    graph.graph.node[0].input[1:] = ["x", "x"]
    assert rules(graph, level="error") == {"zero-point", "scale"}
    constant = quantized()
    kept = [tensor for tensor in constant.graph.initializer if tensor.name != "xs"]
    del constant.graph.initializer[:]
    constant.graph.initializer.extend(kept)
    constant.graph.node.insert(0, helper.make_node("Constant", [], ["xs"], value_float=0.1))
    assert rules(constant) == set()


@pytest.mark.parametrize("scale", [0.0, -0.1, np.inf, np.nan])
def test_scales_are_finite_and_positive(scale):
    assert rules(quantized(x_scale=np.float32(scale)), level="error") == {"scale"}


def test_half_precision_scales_need_opset_19_and_so_tensorrt_10():
    half = np.float16(0.1)
    assert rules(quantized(x_scale=half, opset=19), "10.3") == set()
    assert rules(quantized(x_scale=half, opset=17), "10.3", "error") == {"scale-type"}
    assert rules(quantized(x_scale=half, opset=19), "8.6", "error") == {"opset", "scale-type"}


@pytest.mark.parametrize(
    ("operator", "weight", "right", "attributes"),
    [
        ("Conv", (32, 16, 3, 3), 0, {}),
        ("ConvTranspose", (16, 32, 3, 3), 1, {}),
        ("Gemm", (16, 32), 1, {}),
        ("Gemm", (32, 16), 0, {"transB": 1}),
        ("MatMul", (16, 32), 1, {}),
    ],
)
def test_weights_have_their_scales_along_the_output_channels(operator, weight, right, attributes):
    assert rules(quantized(operator, weight, axis=right, **attributes)) == set()
    assert rules(quantized(operator, weight, axis=right - len(weight), **attributes)) == set()
    wrong = quantized(operator, weight, axis=1 - right, **attributes)
    assert rules(wrong, level="error") == {"per-channel"}


def test_a_float_weight_behind_a_whole_pair_and_a_transpose_counts_as_a_weight():
    constants = {"w": np.ones((32, 16), np.float32), "s": np.ones(32, np.float32), "z": np.zeros(32, np.int8)}

    def graph(axis):
        nodes = [
            helper.make_node("QuantizeLinear", ["w", "s", "z"], ["w8"], axis=axis),
            helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["wd"], axis=axis),
            helper.make_node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "wt"], ["y"]),
        ]
        return model(nodes, constants=constants, shape=("batch", 16))

    assert rules(graph(0)) == set()
    assert rules(graph(1), level="error") == {"per-channel"}


def test_activations_have_one_scale():
    graph = quantized(x_scale=np.full(16, 0.1, np.float32), x_zero=np.zeros(16, np.int8))
    assert rules(graph, level="error") == {"per-channel"}
    assert rules(quantized(x_scale=np.full(1, 0.1, np.float32))) == set()


def test_a_bias_stays_float():
    graph = quantized()
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones(32, np.int32), "b32"),
            numpy_helper.from_array(np.full(32, 0.01, np.float32), "bs"),
        ]
    )
    graph.graph.node.insert(0, helper.make_node("DequantizeLinear", ["b32", "bs"], ["bd"], "dqb", axis=0))
    graph.graph.node[-1].input.append("bd")
    assert [f.rule for f in legality.check(graph, "10.3").findings] == ["int32-bias"]


def test_doubles_and_on_tensorrt_8_long_integers_are_named():
    for dtype, eight, ten in ((FLOAT, set(), set()), (TensorProto.DOUBLE, *({"input-type"},) * 2)):
        assert (rules(relu(dtype=dtype), "8.6"), rules(relu(dtype=dtype), "10.3")) == (eight, ten)
    assert rules(relu(dtype=TensorProto.INT64), "8.6", "warning") == {"input-type"}
    assert rules(relu(dtype=TensorProto.INT64), "10.3") == set()


def test_a_dynamic_image_size_needs_a_profile():
    assert rules(relu(shape=("batch", 3, "height", 8)), level="warning") == {"dynamic-shape"}
    assert rules(relu(shape=("batch", 3, 8, 8))) == set()


@pytest.mark.parametrize(
    ("weight", "attributes", "warned"),
    [
        ((32, 16, 1, 1), {}, False),
        ((8, 16, 1, 1), {}, True),
        ((33, 16, 1, 1), {}, True),
        ((32, 3, 1, 1), {}, True),
        ((16, 1, 1, 1), {"group": 16}, False),
    ],
)
def test_narrow_and_odd_quantized_convolutions_are_named(weight, attributes, warned):
    found = legality.check(quantized(weight=weight, **attributes), "10.3")
    assert found.legal and [f.rule for f in found.findings] == ["channels"] * warned


def test_a_quantizer_between_a_layer_and_its_relu_is_named():
    def graph(*order):
        nodes = quantized().graph.node[:]
        last = "y"
        for operator in order:
            if operator == "pair":
                nodes.append(helper.make_node("QuantizeLinear", [last, "xs", "xz"], [f"{last}q"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"{last}q", "xs", "xz"], [f"{last}d"]))
                last += "d"
            else:
                nodes.append(helper.make_node(operator, [last], [f"{last}{operator}"]))
                last += operator
        made = quantized()
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        return made

    assert rules(graph("pair", "Relu"), level="warning") == {"fusion"}
    assert rules(graph("Relu", "pair", "Sigmoid")) == set()
    assert rules(graph("pair", "Sigmoid")) == set()


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
