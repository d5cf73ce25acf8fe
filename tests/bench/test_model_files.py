"""What counts as a model's file: with the files in which it keeps its weights."""

from __future__ import annotations

import hashlib

import onnx
import pytest

from edgekd.bench.measure import benchmark
from edgekd.bench.model_files import external_data
from edgekd.bench.onnx_tensors import stored_tensors
from edgekd.errors import BenchError


def data_files(file):
    return external_data(file, stored_tensors(file))


QUICK = {"seconds": 0.02, "warmup_seconds": 0.005}


@pytest.mark.parametrize("name", ["weights.bin", "w" * 200 + ".bin"])
def test_weights_in_another_file_count(small_net, tmp_path, name):
    model = onnx.load(small_net)
    weights = {"location": name, "size_threshold": 0, "convert_attribute": True}
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, **weights)
    data = tmp_path / name
    assert data_files(tmp_path / "m.onnx") == (data,) and data_files(small_net) == ()
    (entry,) = benchmark(tmp_path / "m.onnx", **QUICK)
    parts = (tmp_path / "m.onnx").read_bytes() + data.read_bytes()
    assert (entry.file.size_bytes, entry.file.data) == (len(parts), (name,))
    assert entry.file.sha256 == hashlib.sha256(parts).hexdigest()
    data.write_bytes(bytes(len(data.read_bytes())))
    assert benchmark(tmp_path / "m.onnx", **QUICK)[0].file.sha256 != entry.file.sha256
    data.unlink()
    with pytest.raises(BenchError, match=f"in another file that is missing\n  found: {name}"):
        benchmark(tmp_path / "m.onnx", **QUICK)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/hostname", "a/../../weights.bin"])
def test_weights_outside_the_graphs_folder_are_not_read(small_net, tmp_path, name):
    model = onnx.load(small_net)
    for tensor in model.graph.initializer:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BenchError, match=f"in a file outside its folder\n  found: {name}"):
        benchmark(tmp_path / "m.onnx", **QUICK)
