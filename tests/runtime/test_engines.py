"""Building, finding, refusing and running engines, over the stand-ins for a GPU; the last test needs a real one."""

from __future__ import annotations

import json
import shutil

import pytest
from samples import seal_bundle, write_bundle_json
from tensorrt_stand_in import UNBUILDABLE

from edgekd import runtime
from edgekd.bench.measure import benchmark
from edgekd.errors import BackendError, BundleError, UnknownNameError, UsageError
from edgekd.runtime import engines
from edgekd.runtime.backends import BuildOptions, open_session, tensorrt

ALL = ("fp32", "fp16", "int8", "int8-asym")


def test_all_that_tensorrt_takes_is_built_once(device, many_bundle):
    trt, bundle = device(), many_bundle(*ALL)
    built = engines.build(bundle)
    assert [(engine.variant, engine.reused) for engine in built] == [("int8", False), ("fp16", False), ("fp32", False)]
    assert all(engine.path.stat().st_size == engine.size_bytes for engine in built)
    again = engines.build(bundle)
    assert [engine.path for engine in again] == [engine.path for engine in built]
    assert all(engine.reused for engine in again) and trt.asked["builds"] == 3
    assert not engines.build(bundle, ["fp32"], options=BuildOptions(max_batch=9))[0].reused
    assert len(engines.find(bundle)) == 4


def test_another_version_or_gpu_has_engines_of_its_own(device, linear_bundle):
    device()
    first = engines.build(linear_bundle)[0].path
    device("10.13.3")
    with pytest.raises(BackendError, match="no engine was built from this bundle on this device"):
        runtime.load(linear_bundle, backend="tensorrt")
    second = engines.build(linear_bundle)[0].path
    device("10.13.3", name="NVIDIA Thor", capability=(11, 0))
    third = engines.build(linear_bundle)[0].path
    assert len({first, second, third}) == 3


def test_a_damaged_engine_is_refused_and_built_again(device, linear_bundle):
    device()
    path = engines.build(linear_bundle)[0].path
    path.write_bytes(b"bent")
    with pytest.raises(BackendError, match=r"was changed after it was built(?s:.)*edgekd build"):
        runtime.load(linear_bundle, backend="tensorrt")
    (again,) = engines.build(linear_bundle)
    assert not again.reused and runtime.load(linear_bundle, backend="tensorrt").verify().images == 3
    (path.parent / "engine.json").write_text("{")
    assert engines.find() == [] and not engines.build(linear_bundle)[0].reused


def test_bench_measures_the_built_engines(device, many_bundle):
    device()
    bundle = many_bundle(*ALL)
    engines.build(bundle, ["fp32", "int8"])
    found = benchmark(bundle, backend="tensorrt", seconds=0.02, warmup_seconds=0.0)
    assert [(entry.variant, entry.engine, entry.file.name) for entry in found] == [
        ("int8", "tensorrt 10.3.0", "model.engine"),
        ("fp32", "tensorrt 10.3.0", "model.engine"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "8.6.2"}, r"another version\n  found: tensorrt 8.6.2\n  allowed: tensorrt 10.3.0"),
        ({"gpu": "Xavier"}, r"another GPU\n  found: Xavier, .* 8.7\n  allowed: Orin, compute capability 8.7"),
        ({"compute_capability": "7.2"}, r"another GPU\n  found: Orin, .* 7.2\n"),
        ({"graph": "0" * 64}, r"another graph\n  found: sha256 0000"),
        ({"sha256": "0" * 64}, r"was changed after it was built\n  found: sha256 "),
        ({"options": 3}, "not a valid engine record"),
    ],
)
def test_a_loose_engine_is_held_against_its_record_first(device, linear_bundle, tmp_path, change, message):
    trt = device()
    built = engines.build(linear_bundle)[0].path
    record = json.loads((built.parent / "engine.json").read_text())
    loose = shutil.copy(built, tmp_path / "x.engine")
    (tmp_path / "engine.json").write_text(json.dumps({**record, **change}))
    trt.Runtime = None  # asking TensorRT would be a TypeError
    with pytest.raises(BackendError, match=message):
        tensorrt.TrtSession(loose, graph=record["graph"])


def test_a_loose_engine_without_a_record_goes_to_tensorrt(device, linear_bundle, tmp_path):
    device()
    loose = shutil.copy(engines.build(linear_bundle)[0].path, tmp_path / "x.engine")
    assert open_session(loose).engine == "tensorrt 10.3.0"
    loose.write_bytes(b"no plan")
    with pytest.raises(BackendError, match="another TensorRT version or for another device"):
        open_session(loose)
    with pytest.raises(BundleError, match=r"found: one file(?s:.)*edgekd bench .*x.engine"):
        runtime.load(loose)


def test_a_session_names_its_gpu_and_a_runtime_that_does_not_start_its_reason(device, linear_bundle):
    trt = device(name="Orin")
    built = engines.build(linear_bundle)[0].path
    assert open_session(built).device == "cuda:0, Orin"

    def refuse(log):
        log.log(trt.ILogger.ERROR, "out of memory")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Runtime = refuse
    with pytest.raises(BackendError, match=r"10\.3\.0 cannot start its runtime\n  found: out of memory"):
        open_session(built)


def test_what_cannot_be_built_is_reported_before_building(device, many_bundle):
    trt = device(name="NVIDIA Tegra X1", capability=(5, 3))
    bundle = many_bundle(*ALL)
    with pytest.raises(BackendError, match=r"cannot compute in int8(?s:.)*Tegra X1, compute capability 5.3"):
        engines.build(bundle)
    with pytest.raises(UsageError, match="does not accept the variant int8-asym"):
        engines.build(bundle, ["int8-asym"])
    with pytest.raises(UnknownNameError, match="did you mean 'fp16'"):
        engines.build(bundle, ["fp61"])
    with pytest.raises(UsageError, match="--opt-batch 9, --max-batch 8"):
        engines.build(bundle, options=BuildOptions(opt_batch=9))
    assert trt.asked["builds"] == 0


def test_a_precision_that_no_build_knows(device, many_bundle):
    device()
    bundle = many_bundle("fp8", engines={"tensorrt": ["fp8"]})
    with pytest.raises(BackendError, match=r"TensorRT accepts no variant(?s:.)*found: fp8: float8"):
        engines.build(bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["variants"]["fp8"]["activations"] = "float16"
    write_bundle_json(bundle, manifest)
    with pytest.raises(BackendError, match="precision fp8"):
        engines.build(bundle)


def test_finished_engines_outlive_a_later_failure(device, many_bundle):
    trt = device()
    bundle = many_bundle("fp16", "fp32")
    engines.build(bundle, ["fp16"])
    broken = bundle / "model.fp32.onnx"
    broken.write_bytes(UNBUILDABLE)
    seal_bundle(bundle, json.loads((bundle / "bundle.json").read_text()))
    with pytest.raises(BackendError, match="no implementation found"):
        engines.build(bundle)
    assert len(engines.find()) == 1 and trt.asked["builds"] == 2


@pytest.mark.tensorrt
def test_a_real_engine_answers_as_the_bundle_states(linear_bundle, tmp_path, monkeypatch):
    if (reason := tensorrt.BACKEND.available()) is not None:
        pytest.fail(reason)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (built,) = engines.build(linear_bundle, options=BuildOptions(4))
    model = runtime.load(linear_bundle)
    assert model.engine.startswith("tensorrt ") and model.verify().images == 3
    assert engines.build(linear_bundle, options=BuildOptions(4))[0].reused and built.size_bytes > 0
