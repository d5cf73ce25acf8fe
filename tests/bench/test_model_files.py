"""What counts as a model's file: with the files in which it keeps its weights."""

from __future__ import annotations

import hashlib

import onnx
import pytest

from edgekd.bench.measure import benchmark
from edgekd.bench.model_files import external_data
from edgekd.errors import BenchError

QUICK = {"seconds": 0.02, "warmup_seconds": 0.005}


@pytest.mark.parametrize("name", ["weights.bin", "w" * 200 + ".bin"])
def test_weights_in_another_file_count(small_net, tmp_path, name):
    model = onnx.load(small_net)
    weights = {"location": name, "size_threshold": 0, "convert_attribute": True}
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, **weights)
    data = tmp_path / name
    assert external_data(tmp_path / "m.onnx") == (data,) and external_data(small_net) == ()
    (entry,) = benchmark(tmp_path / "m.onnx", **QUICK)
    parts = (tmp_path / "m.onnx").read_bytes() + data.read_bytes()
    assert (entry.file.size_bytes, entry.file.data) == (len(parts), (name,))
    assert entry.file.sha256 == hashlib.sha256(parts).hexdigest()
    data.write_bytes(bytes(len(data.read_bytes())))
    assert benchmark(tmp_path / "m.onnx", **QUICK)[0].file.sha256 != entry.file.sha256
    data.unlink()
    with pytest.raises(BenchError, match=f"in another file that is missing\n  found: {name}"):
        benchmark(tmp_path / "m.onnx", **QUICK)
