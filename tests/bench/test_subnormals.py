from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgekd.bench.measure import benchmark
from edgekd.bench.model_files import model_file
from edgekd.bench.subnormals import subnormal_warning
from edgekd.cli.bench import command

QUICK = {"seconds": 0.02, "warmup_seconds": 0.0}
# The smallest normal number of each type, from the formats' definitions.
TINY = {"float32": 2.0**-126, "float64": 2.0**-1022, "bfloat16": 2.0**-126, "float16": 2.0**-14}


def weight(count: int, size: int = 6400, *, value: float = TINY["float32"] / 2) -> np.ndarray:
    """(64, size / 64), `count` of it subnormal in float32 and the rest normal, also in its sign."""
    values = np.full(size, 0.5, np.float32)
    values[:count] = value
    values[: count // 2] *= -1
    return values.reshape(64, -1)


def write(path, *tensors: onnx.TensorProto, **options):
    """The first tensor is multiplied with the input; the others only lie there."""
    columns = tensors[0].dims[0]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", tensors[0].name], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(tensors),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, **options)
    return path


def found(path):
    return [(each.tensor, each.subnormal, each.values) for each in model_file(path).subnormal_weights]


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (0, 6400, []),
        (63, 6400, []),  # under a hundredth
        (64, 6400, [("w", 64, 6400)]),
        (6400, 6400, [("w", 6400, 6400)]),
        (31, 64, []),  # a few values, although half of a small tensor
        (32, 64, [("w", 32, 64)]),
    ],
)
def test_a_notable_share_of_subnormal_values(tmp_path, count, size, expected):
    assert found(write(tmp_path / "m.onnx", numpy_helper.from_array(weight(count, size), "w"))) == expected


@pytest.mark.parametrize("value", [0.0, -0.0, TINY["float32"], -TINY["float32"], np.inf, np.nan, 1e-30])
def test_zero_and_the_smallest_normal_number_are_not_subnormal(tmp_path, value):
    assert found(write(tmp_path / "m.onnx", numpy_helper.from_array(weight(6400, value=value), "w"))) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_types_by_their_own_range(tmp_path, dtype):
    """float16 never: what is subnormal there is a normal number where a CPU computes it."""
    kind = getattr(TensorProto, {"float64": "DOUBLE"}.get(dtype, dtype.upper()))
    numpy_type = helper.tensor_dtype_to_np_dtype(kind)
    below, at = (np.full(64, TINY[dtype] * factor).astype(numpy_type) for factor in (0.5, 1.0))
    small = write(
        tmp_path / "m.onnx",
        numpy_helper.from_array(weight(0), "w"),
        numpy_helper.from_array(below, "below"),
        numpy_helper.from_array(at, "at"),
    )
    assert found(small) == ([] if dtype == "float16" else [("below", 64, 64)])


def test_wherever_values_are_stored(tmp_path):
    values = weight(640)
    typed = helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel())
    assert found(write(tmp_path / "typed.onnx", typed)) == [("w", 640, 6400)]
    two = [numpy_helper.from_array(weight(count), name) for name, count in (("w", 640), ("v", 700))]
    beside = {"save_as_external_data": True, "size_threshold": 0, "location": "w.bin"}
    assert found(write(tmp_path / "external.onnx", *two, **beside)) == [("v", 700, 6400), ("w", 640, 6400)]


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "99999999"), ("length", "99999999"), ("offset", "x"), ("length", "0")]
)
def test_a_place_that_is_not_in_the_file_is_left_to_the_engine(tmp_path, key, value):
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "w.bin"}
    file = write(tmp_path / "m.onnx", numpy_helper.from_array(weight(640), "w"), **options)
    model = onnx.load(file, load_external_data=False)
    (entry,) = [each for each in model.graph.initializer[0].external_data if each.key == key] or [None]
    entry.value = value
    onnx.save(model, file)
    assert found(file) == []


def test_the_record_and_the_terminal_name_tensor_number_and_remedy(tmp_path):
    file = write(tmp_path / "slow.onnx", numpy_helper.from_array(weight(640), "conv1.weight"))
    options = ["--seconds", "0.02", "--warmup", "0"]
    shown = CliRunner().invoke(command, [str(file), *options]).stdout
    assert "slow.onnx has subnormal weights (640 of 6,400 in conv1.weight)" in shown and "Set them to 0" in shown
    assert shown.count("subnormal") == 1
    (record,) = json.loads(CliRunner().invoke(command, [str(file), "--json", *options]).stdout)
    assert record["file"]["subnormal_weights"] == [{"tensor": "conv1.weight", "subnormal": 640, "values": 6400}]
    clean = write(tmp_path / "clean.onnx", numpy_helper.from_array(weight(0), "conv1.weight"))
    assert "subnormal" not in CliRunner().invoke(command, [str(clean), *options]).stdout


def test_a_gpu_is_not_slowed_down(tmp_path):
    tensors = [numpy_helper.from_array(weight(640), name) for name in "wabcd"]
    (entry,) = benchmark(write(tmp_path / "m.onnx", *tensors), **QUICK)
    assert "and in 2 more tensors" in subnormal_warning(entry, "m")
    assert subnormal_warning(entry.model_copy(update={"runs_on": "cuda:0, Orin"}), "m") is None
