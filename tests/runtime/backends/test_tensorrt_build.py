"""What the builder is asked for, by each real version's names; nothing here has run on a GPU."""

from __future__ import annotations

import pytest
from tensorrt_stand_in import API, UNBUILDABLE, UNREADABLE, namespace

from edgekd.errors import BackendError
from edgekd.runtime.backends import _tensorrt_build as building
from edgekd.runtime.backends import tensorrt

WEAK = {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}
STRONG = {"fp32": [], "fp16": [], "int8": []}
CREATION = {
    "8.6.0": ["EXPLICIT_BATCH"],
    "10.3.0": [],
    "10.13.3": ["STRONGLY_TYPED"],
    "10.16.1": ["STRONGLY_TYPED"],
    "11.4.0": ["STRONGLY_TYPED"],
}
# In float16 alone, the graph has operators that must not be computed in it.
STRONG_FP16 = ("10.3.0",)
PRECISIONS = {version: WEAK if version in ("8.6.0", "10.3.0") else STRONG for version in CREATION}


@pytest.fixture
def graph(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"a graph")
    return file


def build(version, graph, precision="fp32", **options):
    trt = namespace(version)
    timings = options.pop("timings", b"")
    asked = building.Options(precision, opt_batch=2, max_batch=4, **options)
    plan = building.build(trt, tensorrt.new_log(trt), graph, asked, timings=timings)
    return trt.asked, plan


def test_every_version_is_covered():
    assert set(CREATION) == set(API)


@pytest.mark.parametrize("precision", WEAK)
@pytest.mark.parametrize("version", CREATION)
def test_flags_by_version_and_precision(version, precision, graph):
    asked, plan = build(version, graph, precision)
    strong = precision == "fp16" and version in STRONG_FP16
    assert asked["creation"] == (["STRONGLY_TYPED"] if strong else CREATION[version])
    assert asked["flags"] == ([] if strong else PRECISIONS[version][precision])
    # TF32 is the default; 8.6.0 on an H100 was off by 2e-3 of the demo's largest output with it.
    assert asked["cleared"] == (["TF32"] if precision == "fp32" else [])
    assert asked["profile"] == ("input", (1, 3, 4, 4), (2, 3, 4, 4), (4, 3, 4, 4))
    assert plan.timings == b"timings" and not plan.timings_replaced


def test_a_strong_version_without_the_flag_is_strong_anyway(graph):
    trt = namespace("11.4.0")
    trt.NetworkDefinitionCreationFlag = namespace("8.6.0").NetworkDefinitionCreationFlag
    assert building.creation_flags(trt, "int8") == [] and building.builder_flags(trt, "int8") == []


def test_a_weak_version_without_a_precision_is_refused_and_not_built_in_another():
    trt = namespace("10.3.0")
    trt.BuilderFlag = namespace("11.4.0").BuilderFlag
    with pytest.raises(BackendError, match=r"cannot build int8 engines\n  found: no flag INT8, FP16"):
        building.builder_flags(trt, "int8")


@pytest.mark.parametrize(
    ("version", "strong"), [("8.6.1.6", False), ("10.11.0", False), ("10.12.0.36", True), ("11.4.0.1", True)]
)
def test_strong_typing_begins_with_10_12_and_for_fp16_with_10(version, strong):
    assert building.is_strong(version, "fp32") is building.is_strong(version, "int8") is strong
    assert building.is_strong(version, "fp16") is not version.startswith("8.")


@pytest.mark.parametrize("version", API)
def test_all_that_the_parser_refuses_is_reported_at_once(version, graph):
    graph.write_bytes(UNREADABLE)
    with pytest.raises(BackendError) as caught:
        build(version, graph)
    message = str(caught.value)
    old = version == "8.6.0"
    names = ["node 7: ", "node 8: "] if old else ["node /conv0 (QLinearConv): ", "node /conv1 (QLinearConv): "]
    assert all(
        name in message for name in [*names, "for op: QLinearConv", f"edgekd check {graph} --tensorrt {version}"]
    )
    assert ("opset 17" in message) is old


def test_a_builder_that_does_not_start_carries_the_loggers_error(graph):
    trt = namespace("8.6.0")

    def refuse(log):  # what the real module does, e.g. for libraries of different versions
        log.log(trt.ILogger.INTERNAL_ERROR, "the libraries' digests differ")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder = refuse
    with pytest.raises(BackendError, match=r"8\.6\.0 cannot start its builder\n  found: the libraries' digests differ"):
        building.build(trt, tensorrt.new_log(trt), graph, building.Options("fp32", 1, 1))


def test_a_failed_build_carries_the_loggers_error(graph):
    graph.write_bytes(UNBUILDABLE)
    with pytest.raises(BackendError, match=r"cannot build an engine(?s:.)*no implementation found"):
        build("10.3.0", graph)


def test_workspace_is_bytes_and_left_alone_where_not_asked_for(graph):
    assert build("10.3.0", graph, workspace_mb=512)[0]["pools"] == {"WORKSPACE": 512 * 1024 * 1024}
    assert build("10.3.0", graph)[0]["pools"] == {}


@pytest.mark.parametrize("timings", [b"damaged", b"of another device"])
def test_timings_of_no_use_are_begun_anew(timings, graph):
    asked, plan = build("10.3.0", graph, timings=timings)
    assert plan.timings_replaced and asked["timings"][-1] == b""
    asked, plan = build("10.3.0", graph, timings=b"timings")
    assert not plan.timings_replaced and asked["timings"] == [b"timings"]


@pytest.mark.parametrize(("shape", "message"), [((-1, 3, -1, -1), "dynamic input size"), ((), "dynamic input size")])
def test_inputs_of_no_fixed_size_are_refused(shape, message, graph, monkeypatch):
    monkeypatch.setattr("tensorrt_stand_in.SHAPE", shape)
    with pytest.raises(BackendError, match=message):
        build("10.3.0", graph)
