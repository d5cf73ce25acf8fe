from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from samples import write_bundle_json

from edgekd.bench.measure import benchmark, require_local
from edgekd.devices.profiles import Profile
from edgekd.errors import BackendError, BenchError, BundleError, UnknownNameError, UsageError
from edgekd.runtime.preprocess import Preprocessing

QUICK = {"seconds": 0.02, "warmup_seconds": 0.005}


def test_batches_and_threads_are_as_asked(measured):
    assert [entry.batch_size for entry in measured] == [1, 4]
    assert [entry.inputs[0].shape for entry in measured] == [(1, 3, 8, 8), (4, 3, 8, 8)]
    assert {entry.threads for entry in measured} == {1}


def test_any_rank_with_a_batch_and_bytes(graph):
    (table,) = benchmark(graph(("n", 5)), batch_sizes=(3,), **QUICK)
    assert table.inputs[0].shape == (3, 5)
    (pixels,) = benchmark(graph((2, 4, 4, 3), dtype=TensorProto.UINT8), batch_sizes=(2,), **QUICK)
    assert pixels.inputs[0].dtype == "uint8"


@pytest.mark.parametrize("dtype", ["FLOAT16", "DOUBLE", "INT8", "INT64", "UINT16", "BOOL", "STRING"])
def test_every_type_that_numpy_has(graph, dtype):
    (entry,) = benchmark(graph(("n", 5), dtype=getattr(TensorProto, dtype)), **QUICK)
    assert entry.inputs[0].values.startswith("random")


@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5)])
def test_without_a_batch_dimension_a_call_is_one_sample(graph, shape):
    (entry,) = benchmark(graph(shape), **QUICK)
    assert (entry.batch_size, entry.inputs[0].shape) == (1, shape)
    assert entry.throughput_per_s == pytest.approx(entry.runs / entry.seconds, rel=1e-2)


def test_a_model_without_inputs(tmp_path):
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph([node], "g", [], [output]), ir_version=8)
    onnx.save(model, tmp_path / "constant.onnx")
    (entry,) = benchmark(tmp_path / "constant.onnx", **QUICK)
    assert (entry.inputs, entry.batch_size) == ((), 1)


def test_several_inputs_each_get_values_of_their_own(graph):
    file = graph(("n", "length"), ("n", "length"), (1, 1))
    with pytest.raises(BenchError, match="--input-shape in0=1x128 --input-shape in1=1x128"):
        benchmark(file, **QUICK)
    (entry,) = benchmark(file, batch_sizes=[3], input_shape={"in1": (1, 6)}, **QUICK)
    assert [(each.name, each.shape) for each in entry.inputs] == [("in0", (3, 6)), ("in1", (3, 6)), ("in2", (1, 1))]
    assert entry.batch_size == 3 and entry.input_file is None


def test_inputs_from_a_file_and_where_they_came_from(graph, tmp_path):
    file = graph(("n", "length"), ("n", 1), dtype=TensorProto.DOUBLE)
    np.savez(tmp_path / "in.npz", in0=np.ones((4, 9)), in1=np.ones((4, 1)))
    (entry,) = benchmark(file, input_file=tmp_path / "in.npz", **QUICK)
    assert [each.shape for each in entry.inputs] == [(4, 9), (4, 1)] and entry.batch_size == 4
    assert {each.values for each in entry.inputs} == {"from the file"}
    assert entry.input_file.sha256 == hashlib.sha256((tmp_path / "in.npz").read_bytes()).hexdigest()
    np.savez(tmp_path / "in.npz", in0=np.ones((4, 9), np.int32), in2=np.ones((4, 1)))
    with pytest.raises(BenchError, match="'in0' is int32, the model takes float64; 'in1' is missing; 'in2' is no"):
        benchmark(file, input_file=tmp_path / "in.npz", **QUICK)


def test_arrays_that_contradict_each_other(graph, tmp_path):
    np.savez(tmp_path / "in.npz", in0=np.ones((4, 9), np.float32), in1=np.ones((3, 9), np.float32))
    with pytest.raises(UsageError, match="4 in 'in0', 3 in 'in1'"):
        benchmark(graph(("n", 9), ("n", 9)), input_file=tmp_path / "in.npz", **QUICK)


def test_values_that_the_model_cannot_compute_with(tmp_path):
    """Not every index is one of a table of one row."""
    table = onnx.numpy_helper.from_array(np.ones((1, 4), np.float32), "table")
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Gather", ["table", "tokens"], ["y"])], "g", [tokens], [output], [table])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BenchError, match=r"cannot run it on tokens \(1, 4\)(?s:.)*real values \(--input\)"):
        benchmark(tmp_path / "net.onnx", **QUICK)
    np.savez(tmp_path / "in.npz", tokens=np.zeros((2, 4), np.int64))
    assert benchmark(tmp_path / "net.onnx", input_file=tmp_path / "in.npz", **QUICK)[0].batch_size == 2


def test_all_outputs_are_fetched(tmp_path):
    """A second output of other kinds is part of a call, as it is for an app."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    parts = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("SplitToSequence", ["x"], ["parts"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y, parts]), ir_version=8)
    model.opset_import[0].version = 17
    onnx.save(model, tmp_path / "net.onnx")
    assert benchmark(tmp_path / "net.onnx", **QUICK)[0].batch_size == 1


def test_dynamic_sizes_are_measured_in_the_given_shape(graph):
    (entry,) = benchmark(graph(("n", 3, "h", "w")), batch_sizes=(2,), input_shape=(1, 3, 6, 7), **QUICK)
    assert entry.inputs[0].shape == (2, 3, 6, 7)


@pytest.mark.parametrize(
    "shapes, batch_sizes, message",
    [
        ([(7,)], (2,), "no batch dimension"),
        ([(4, 3)], (1,), "fixed at 4"),
        ([("n", "h")], (1,), "--input-shape"),
    ],
)
def test_models_that_cannot_be_measured(graph, shapes, batch_sizes, message):
    with pytest.raises(BenchError, match=message):
        benchmark(graph(*shapes), batch_sizes=batch_sizes, **QUICK)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x07\x12"])
def test_a_broken_file_is_the_backends_error(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(BackendError, match="broken.onnx"):
        benchmark(tmp_path / "broken.onnx", **QUICK)


def test_a_pointer_to_a_file_that_git_has_not_fetched(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / "net.onnx").write_text(pointer)
    with pytest.raises(BackendError, match="cannot load(?s:.)*git lfs pull"):
        benchmark(tmp_path / "net.onnx", **QUICK)


def test_a_suffix_in_capitals(small_net, tmp_path):
    shutil.copy(small_net, tmp_path / "NET.ONNX")
    assert benchmark(tmp_path / "NET.ONNX", **QUICK)[0].target == "NET.ONNX"


def test_a_model_that_loads_but_does_not_run(stubborn_net):
    (entry,) = benchmark(stubborn_net, input_shape=(1, 3, 8, 8), **QUICK)
    assert entry.inputs[0].shape == (1, 3, 8, 8)
    with pytest.raises(BenchError, match="cannot run it on image .1, 3, 9, 9."):
        benchmark(stubborn_net, input_shape=(1, 3, 9, 9), **QUICK)


@pytest.mark.parametrize("shape", [(1, 3, 10**8, 10**8), (1, 3, 10**12, 10**12)])
def test_inputs_that_do_not_fit_into_memory(graph, shape):
    with pytest.raises(BenchError, match="do not fit into memory\n  found: in0 .1, 3, 1000"):
        benchmark(graph(("n", 3, "h", "w")), input_shape=shape, **QUICK)


def test_files_and_folders_that_are_not_models(tmp_path):
    for name in ("image.jpg", "model.engine"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(BackendError, match=f"no available engine opens {name}"):
            benchmark(tmp_path / name)
    with pytest.raises(BenchError, match="does not exist"):
        benchmark(tmp_path / "gone.onnx")
    with pytest.raises(BundleError):
        benchmark(tmp_path)


@pytest.fixture
def bundle(small_net, tmp_path):
    """Two equal graphs with a manifest; what only other readers look at is empty."""
    names = {"fp16": "model.fp16.onnx", "fp32": "model.fp32.onnx", "exotic": "model.exotic.onnx"}
    for name in names.values():
        shutil.copy(small_net, tmp_path / name)
    (tmp_path / "empty.npy").touch()
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    activations = {"fp16": "float16", "fp32": "float32", "exotic": "bfloat16"}
    variant = {"metrics": {}, "vectors": "empty.npy", "tolerance": 0.1}
    manifest = {
        "format": 2,
        "name": "shoes",
        "classes": ["a", "b", "c", "d"],
        "preprocessing": Preprocessing((8, 8), (8, 8)).to_json(),
        "variants": {
            name: {"file": file, "precision": name, "activations": activations[name], **variant}
            for name, file in names.items()
        },
        "vectors": {"images": "empty.npy", "inputs": "empty.npy"},
        "files": {name: {"sha256": digest} for name, digest in digests.items()},
        "provenance": {},
    }
    write_bundle_json(tmp_path, manifest)
    return tmp_path


def test_a_bundle_is_measured_in_all_variants_that_the_engine_runs(bundle):
    seen = []
    found = benchmark(bundle, progress=lambda done, total, what: seen.append((done, total, what)), **QUICK)
    assert [(entry.target, entry.variant, entry.file.name) for entry in found] == [
        ("shoes", "fp32", "model.fp32.onnx"),
        ("shoes", "fp16", "model.fp16.onnx"),
    ]
    assert seen == [(0, 2, "fp32"), (1, 2, "fp16")]


def test_a_bundles_variant_by_name_and_no_changed_file(bundle):
    (entry,) = benchmark(bundle, variant="exotic", **QUICK)
    assert entry.variant == "exotic"
    with pytest.raises(UnknownNameError, match="did you mean 'fp16'"):
        benchmark(bundle, variant="fp61", **QUICK)
    (bundle / "model.fp32.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="model.fp32.onnx"):
        benchmark(bundle, **QUICK)


def test_devices(small_net):
    with pytest.raises(UnknownNameError, match="this-machine"):
        benchmark(small_net, device="this-machin")
    with pytest.raises(BenchError, match="is not this machine"):
        require_local(Profile(name="board", title="A board", kind="board"))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_sizes": ()},
        {"batch_sizes": (1, 0)},
        {"batch_sizes": (1.5,)},
        {"batch_sizes": 1},
        {"batch_sizes": "12"},
        {"threads": 0},
        {"threads": 1.5},
        {"threads": True},
        {"seconds": "3"},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"warmup_seconds": -1.0},
        {"input_shape": ()},
        {"input_shape": (1, 0, 8, 8)},
        {"input_shape": (1, 3, 8.5, 8)},
        {"input_shape": (8, 3, 8, 8), "batch_sizes": (1, 8)},
        {"input_shape": {"input": (1, 3, 8.5, 8)}},
        {"input_shape": {"inputs": (1, 3, 8, 8)}},
        {"input_file": "in.npz", "batch_sizes": (1,)},
        {"input_file": "in.npz", "input_shape": (1, 3, 8, 8)},
        {"threads": 10**6},
        {"variant": "fp32"},
    ],
)
def test_wrong_usage_is_reported_before_anything_is_measured(small_net, options):
    with pytest.raises(UsageError):
        benchmark(small_net, **options)


def test_numpy_numbers_and_any_sequence_are_taken(small_net):
    entries = benchmark(small_net, batch_sizes=range(1, 3), threads=np.int64(1), seconds=np.float32(0.02))
    assert [(entry.batch_size, entry.threads) for entry in entries] == [(1, 1), (2, 1)]


@pytest.mark.parametrize(
    "module", ["edgekd.bench.measure", "edgekd.bench.worker", "edgekd.cli.bench", "edgekd.devices.profiles"]
)
def test_the_device_side_is_light(module):
    heavy = "{'torch', 'torchvision', 'onnx', 'onnxruntime', 'tensorrt', 'edgekd.store', 'edgekd.recipe'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("batch", [3, "batch"])
def test_without_a_batch_size_a_fixed_one_is_taken(graph, batch):
    file = graph((batch, 3, 8, 8))
    (entry,) = benchmark(file, **QUICK)
    fixed = batch if batch == 3 else 1
    assert (entry.batch_size, entry.inputs[0].shape) == (fixed, (fixed, 3, 8, 8))
    assert entry.throughput_per_s == pytest.approx(fixed * entry.runs / entry.seconds, rel=1e-2)
    if batch == 3:
        with pytest.raises(BenchError, match="fixed at 3"):
            benchmark(file, batch_sizes=[1], **QUICK)
