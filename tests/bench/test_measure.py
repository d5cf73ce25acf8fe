from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto
from samples import write_bundle_json

from edgekd.bench.measure import benchmark, require_local
from edgekd.devices.profiles import Profile
from edgekd.errors import BackendError, BenchError, BundleError, UnknownNameError, UsageError
from edgekd.runtime.preprocess import Preprocessing

QUICK = {"seconds": 0.02, "warmup_seconds": 0.005}


def test_batches_and_threads_are_as_asked(measured):
    assert [entry.batch_size for entry in measured] == [1, 4]
    assert [entry.input.shape for entry in measured] == [(1, 3, 8, 8), (4, 3, 8, 8)]
    assert {entry.threads for entry in measured} == {1}


def test_any_rank_with_a_batch_and_bytes(graph):
    (table,) = benchmark(graph(("n", 5)), batch_sizes=(3,), **QUICK)
    assert table.input.shape == (3, 5)
    (pixels,) = benchmark(graph((2, 4, 4, 3), dtype=TensorProto.UINT8), batch_sizes=(2,), **QUICK)
    assert pixels.input.dtype == "uint8"


def test_dynamic_sizes_are_measured_in_the_given_shape(graph):
    (entry,) = benchmark(graph(("n", 3, "h", "w")), batch_sizes=(2,), input_shape=(1, 3, 6, 7), **QUICK)
    assert entry.input.shape == (2, 3, 6, 7)


@pytest.mark.parametrize(
    "shapes, batch_sizes, message",
    [
        ([(1, 3), (1, 3)], (1,), "in0 .1, 3., in1"),
        ([(7,)], (1,), "no batch dimension"),
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


def test_a_model_that_loads_but_does_not_run(stubborn_net):
    (entry,) = benchmark(stubborn_net, input_shape=(1, 3, 8, 8), **QUICK)
    assert entry.input.shape == (1, 3, 8, 8)
    with pytest.raises(BenchError, match="cannot run it on an input of shape"):
        benchmark(stubborn_net, input_shape=(1, 3, 9, 9), **QUICK)


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
    assert seen == [(0, 2, "fp32, batch 1"), (1, 2, "fp16, batch 1")]


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
    assert (entry.batch_size, entry.input.shape) == (fixed, (fixed, 3, 8, 8))
    assert entry.throughput_per_s == pytest.approx(fixed * entry.runs / entry.seconds, rel=1e-2)
    if batch == 3:
        with pytest.raises(BenchError, match="fixed at 3"):
            benchmark(file, batch_sizes=[1], **QUICK)
