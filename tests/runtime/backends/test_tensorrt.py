"""What can be proven about running engines without a GPU, and one test that needs one."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest
from samples import write_linear_onnx
from tensorrt_names import missing, used_names
from tensorrt_stand_in import API

from edgekd import runtime
from edgekd.bench.measure import benchmark
from edgekd.errors import BackendError
from edgekd.runtime import backends
from edgekd.runtime.backends import _cuda, _tensorrt_build, tensorrt

# Names that not every version has; the code asks whether they are there.
PROBED = {"EXPLICIT_BATCH", "FP16", "INT8", "STRONGLY_TYPED", "node_name", "node_operator"}
unusable = pytest.mark.skipif(tensorrt.BACKEND.available() is None, reason="TensorRT can be used here")


def python(code: str, *, path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *filter(None, sys.path)])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


ASK = """
import sys
from edgekd.runtime.backends.tensorrt import BACKEND
print(BACKEND.available(), 'tensorrt' in sys.modules)
"""


@unusable
def test_without_tensorrt_there_is_a_reason_and_no_crash(tmp_path):
    assert tensorrt.BACKEND.available()
    answer = python(ASK, path=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("False\n")


@pytest.mark.skipif(_cuda.unavailable_reason() is None, reason="there is a GPU here")
def test_cuda_is_asked_and_tensorrt_never_imported(tmp_path):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text("raise SystemExit('imported')")
    answer = python(ASK, path=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "CUDA" in answer.stdout and "next" not in answer.stdout and answer.stdout.endswith("False\n")


def test_a_folder_called_tensorrt_is_not_a_package(tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    # Where TensorRT is installed, the package would be found before the folder.
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: PathFinder.find_spec(name, [str(tmp_path)]))
    assert "not installed" in str(tensorrt.BACKEND.available())


@unusable
def test_every_way_to_an_engine_gives_the_reason(tmp_path, linear_bundle):
    engine = tmp_path / "x.engine"
    engine.write_bytes(b"ftrt")
    for attempt in (
        lambda: backends.open_session(engine),
        lambda: benchmark(engine),
        lambda: runtime.load(linear_bundle, backend="tensorrt"),
    ):
        with pytest.raises(BackendError) as caught:
            attempt()
        assert str(tensorrt.BACKEND.available()) in str(caught.value)
    with pytest.raises(BackendError, match="CUDA"):
        tensorrt.BACKEND.open(engine)


@unusable
def test_the_command_line_gives_one_message(tmp_path):
    (tmp_path / "x.engine").write_bytes(b"ftrt")
    command = [sys.executable, "-m", "edgekd", "bench", str(tmp_path / "x.engine")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "no available engine opens x.engine" in answer.stderr and str(tensorrt.BACKEND.available()) in answer.stderr
    assert "Traceback" not in answer.stderr and not answer.stdout


def test_an_onnx_graph_is_not_an_engine(tmp_path):
    with pytest.raises(BackendError, match="runs engines, not model.onnx"):
        tensorrt.BACKEND.open(tmp_path / "model.onnx")


@pytest.mark.parametrize("version", API)
def test_only_names_that_every_version_has(version):
    running = used_names(Path(tensorrt.__file__).read_text())
    assert {"IExecutionContext.execute_async_v3", "TensorIOMode.INPUT"} <= running
    building = used_names(Path(_tensorrt_build.__file__).read_text())
    expected = {"Builder.create_network", "OnnxParser.get_error", "MemoryPoolType.WORKSPACE", "ITensor.shape"}
    expected |= {"ITimingCache.serialize", "IOptimizationProfile.set_shape", "IBuilderConfig.set_flag"}
    assert expected <= building and "ParserError.desc" in building
    assert not missing(running | building, API[version])


def test_names_that_not_every_version_has_are_only_asked_for():
    """Every text in the code that is a name of the builder's, the parser's or the network's in some but not all."""
    owners = ("BuilderFlag", "NetworkDefinitionCreationFlag", "ParserError", "Builder", "IBuilderConfig", "OnnxParser")
    names = [{name for owner in owners for kind in api[owner].values() for name in kind} for api in API.values()]
    source = Path(_tensorrt_build.__file__).read_text()
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert texts & (set.union(*names) - set.intersection(*names)) == PROBED
    assert not any(isinstance(node, ast.Attribute) and node.attr in PROBED for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("trt.made_up()", "made_up"),
        ("trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
        ("engine.device_memory_size", "ICudaEngine.device_memory_size"),
        ("self._context.execute_v9(1)", "IExecutionContext.execute_v9"),
    ],
)
def test_a_name_that_is_gone_is_found(source, found):
    assert missing(used_names(source), API["11.4.0"]) == {found}


@pytest.mark.parametrize("dtype", sorted({name for api in API.values() for name in api["DataType"]["enum"]}))
def test_each_type_has_numpys_or_is_refused_by_name(dtype):
    if dtype in ("BF16", "FP8", "FP4", "INT4", "E8M0"):
        with pytest.raises(BackendError, match=dtype):
            tensorrt._numpy_dtype("x", dtype)
    else:
        bits = {"FLOAT": 32, "HALF": 16, "BOOL": 8}.get(dtype) or int(dtype.removeprefix("U").removeprefix("INT"))
        assert np.dtype(tensorrt._numpy_dtype("x", dtype)).itemsize * 8 == bits


def test_an_engine_with_several_inputs_takes_them_by_name(device, tmp_path):
    device()
    plan = {"batches": [1, 1, 4], "inputs": ["left", "right"]}
    (tmp_path / "x.engine").write_text(json.dumps(plan))
    session = tensorrt.BACKEND.open(tmp_path / "x.engine")
    generator = np.random.default_rng(0)
    left, right = (generator.random((2, 3, 4, 4), np.float32) for _ in range(2))
    for call in (session.bind({"left": left, "right": right}), session.bind({"right": right, "left": left})):
        np.testing.assert_allclose(call(), (left + right).mean((2, 3)), atol=1e-5)
    with pytest.raises(BackendError, match="not the model's inputs(?s:.)*found: left(?s:.)*allowed: left, right"):
        session.bind({"left": left})


@pytest.mark.tensorrt
def test_an_engine_computes_what_onnxruntime_computes(tmp_path):
    if (reason := tensorrt.BACKEND.available()) is not None:
        pytest.fail(reason)
    generator = np.random.default_rng(0)
    onnx = write_linear_onnx(tmp_path / "x.onnx", generator.standard_normal((48, 5)), side=4, opset=13)
    trt = pytest.importorskip("tensorrt")
    options = _tensorrt_build.Options("fp32", opt_batch=2, max_batch=4)
    plan = _tensorrt_build.build(trt, tensorrt.new_log(trt), onnx, options).engine
    (tmp_path / "x.engine").write_bytes(plan)
    ours, theirs = backends.open_session(tmp_path / "x.engine"), backends.open_session(onnx)
    assert ours.inputs[0].shape == ("dim0", 3, 4, 4) and ours.inputs[0].dtype == "float32"
    pairs = [(ours.bind(x), theirs.bind(x)) for x in (generator.random((n, 3, 4, 4), np.float32) for n in (1, 4))]
    for mine, reference in pairs + pairs[:1]:  # two bound calls, in turns
        np.testing.assert_allclose(mine(), reference(), atol=5e-4)  # in fp32, not in TF32
    with pytest.raises(BackendError, match="not built for"):
        ours.bind(np.zeros((5, 3, 4, 4), np.float32))
    for broken in (b"", plan[: len(plan) // 2]):
        (tmp_path / "broken.engine").write_bytes(broken)
        with pytest.raises(BackendError, match="another TensorRT version or for another device"):
            backends.open_session(tmp_path / "broken.engine")
