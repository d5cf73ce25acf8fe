"""`edgekd check`: a verdict for each version, and an exit code that a script can use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import seal_bundle, write_linear_onnx

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

from edgekd.cli._check import examine, grouped, refused, skipped  # noqa: E402
from edgekd.errors import ExportError, UnknownNameError, UsageError  # noqa: E402


def check(*arguments: object, prelude: str = "pass") -> subprocess.CompletedProcess[str]:
    words = ["edgekd", "check", *map(str, arguments)]
    code = f"import sys; {prelude}; sys.argv = {words!r}; from edgekd.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def linear(path: Path, opset: int = 20) -> Path:
    return write_linear_onnx(path, np.ones((48, 3)), side=4, opset=opset)


def quantized(path: Path, zero: np.generic) -> Path:
    """The linear network with its input behind a quantizer."""
    graph = onnx.load(linear(path, opset=17))
    pair = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
    ]
    graph.graph.node[0].input[0] = "d"
    for node in reversed(pair):
        graph.graph.node.insert(0, node)
    constants = {"s": np.float32(0.1), "z": zero}
    graph.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    onnx.save(graph, path)
    return path


def test_a_legal_graph_is_a_table_and_exit_code_0(tmp_path):
    shown = check(linear(tmp_path / "m.onnx", opset=17), prelude="sys.modules['torch'] = None")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split() for line in shown.stdout.splitlines() if line.startswith("m.onnx")]
    assert [(words[1], words[-1]) for words in lines] == [
        (version, "legal") for version in ("8.6", "10.3", "10.13", "10.16", "11.4")
    ]
    assert "was not read" in shown.stdout


def test_an_illegal_graph_states_where_and_why_and_fails(tmp_path):
    shown = check(quantized(tmp_path / "m.onnx", np.uint8(128)), "--tensorrt", "10.3", "--tensorrt", "8.6.2")
    assert shown.returncode == 1
    assert shown.stderr == "edgekd: m.onnx is not legal for TensorRT 10.3, 8.6.2\n"
    assert "error m.onnx: zero-point: the zero point is uint8" in shown.stdout
    assert "2 places: quantize (QuantizeLinear), dequantize (DequantizeLinear)" in shown.stdout


def test_json_carries_every_finding(tmp_path):
    shown = check(linear(tmp_path / "m.onnx", opset=20), "--json", "--tensorrt", "8.6")
    assert shown.returncode == 1
    ((entry,),) = [graph["verdicts"] for graph in json.loads(shown.stdout)]
    assert (entry["version"], entry["jetpack"], entry["legal"]) == ("8.6", "JetPack 6.0", False)
    assert [(found["level"], found["rule"], found["node"]) for found in entry["findings"]] == [("error", "opset", "")]


def test_without_onnx_it_states_what_to_install(tmp_path):
    shown = check(tmp_path / "m.onnx", prelude="sys.modules['onnx'] = None")
    assert shown.returncode == 1
    assert "edgekd check needs onnx" in shown.stderr and "edgekd[onnx]" in shown.stderr


def test_of_a_bundle_every_graph_but_the_asymmetric_one_is_checked(linear_bundle):
    manifest = json.loads((linear_bundle / "bundle.json").read_text())
    for name, zero in (("int8", np.int8(0)), ("int8-asym", np.uint8(0))):
        quantized(linear_bundle / f"model.{name}.onnx", zero)
        kinds = {"precision": "int8", "activations": zero.dtype.name}
        manifest["variants"][name] = {**manifest["variants"]["fp32"], "file": f"model.{name}.onnx", **kinds}
    seal_bundle(linear_bundle, manifest)
    checked = examine(linear_bundle, (), None)
    assert [entry.name for entry in checked] == ["model.fp32.onnx", "model.int8.onnx"]
    assert refused(checked) == "model.fp32.onnx is not legal for TensorRT 8.6"
    assert "not checked: model.int8-asym.onnx is for other engines\n" in check(linear_bundle).stdout
    assert skipped(linear_bundle / "model.fp32.onnx") == []


def test_a_device_brings_its_versions_and_its_precisions(tmp_path):
    file = quantized(tmp_path / "m.onnx", np.int8(0))
    (orin,) = examine(file, (), "jetson-orin-nano-8gb-super")
    assert [verdict.version for verdict in orin.verdicts] == ["10.3", "10.16"] and refused([orin]) is None
    (nano,) = examine(file, ("8.6",), "jetson-nano-4gb")
    (finding,) = [found for found in nano.verdicts[0].findings if found.level == "error"]
    assert finding.rule == "device" and finding.message == "Jetson Nano 4GB has no int8"
    (plain,) = examine(linear(tmp_path / "f.onnx", opset=17), ("8.6",), "jetson-nano-4gb")
    assert refused([plain]) is None


def test_wrong_usage_is_named(tmp_path):
    file = linear(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="does not run TensorRT") as caught:
        examine(file, (), "raspberry-pi-4")
    assert "onnxruntime" in str(caught.value)
    with pytest.raises(UnknownNameError):
        examine(file, (), "jetson-orin-nano-8g")
    with pytest.raises(UsageError, match="unknown TensorRT version"):
        examine(file, ("7.1",), None)
    with pytest.raises(ExportError, match="does not exist"):
        examine(tmp_path / "n.onnx", (), None)


def test_equal_findings_about_many_nodes_are_grouped(tmp_path):
    (entry,) = examine(quantized(tmp_path / "m.onnx", np.int8(1)), ("8.6", "10.3"), None)
    (group,) = grouped(entry.verdicts)
    assert group.versions == ("8.6", "10.3")
    assert group.nodes == ("quantize (QuantizeLinear)", "dequantize (DequantizeLinear)")


def test_one_cause_counts_once_however_often_it_occurs(tmp_path):
    names = [f"t{number}" for number in range(649)]
    nodes = [
        helper.make_node("Det2", [one], [other], domain="own") for one, other in zip(names, names[1:], strict=False)
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4, 4]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    shown = check(tmp_path / "m.onnx", "--tensorrt", "10.3")
    assert shown.returncode == 1 and "not legal: 1 error" in shown.stdout and "648 places: " in shown.stdout
    assert "648 errors" not in shown.stdout
