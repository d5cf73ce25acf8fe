"""What `edgekd eval` opens: the same network gives the same figures as a checkpoint, as a file and in a bundle."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekd.data.reader import open_reader
from edgekd.errors import ArtifactError, BackendError, BundleError, MissingDependencyError, UsageError
from edgekd.models.classifiers import open_classifier
from edgekd.runtime.accuracy import measure
from edgekd.runtime.backends import open_session


@pytest.fixture(scope="module")
def images(small_digits, tmp_path_factory):
    """Forty test images in folders of their classes."""
    folder, reader = tmp_path_factory.mktemp("images"), open_reader(small_digits, "test")
    rows = np.arange(40)
    for row, pixels in zip(rows, reader.pixels(rows), strict=True):
        place = folder / small_digits.classes[reader.split.labels[row]]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{row}.png")
    return folder


def test_a_checkpoint_and_its_graph_have_equal_figures(exported, images):
    checkpoint, graphs = exported
    one = asdict(measure(open_classifier(checkpoint.path), images))
    other = asdict(measure(open_classifier(graphs["fp32"].graph, like=checkpoint.path), images))
    assert (one["variant"], other["variant"]) == ("checkpoint", "model.onnx")
    assert one["engine"].startswith("PyTorch ") and other["engine"].startswith("onnxruntime ")
    for key in (
        "accuracy",
        "interval",
        "samples",
        "balanced_accuracy",
        "per_class",
        "confused",
        "majority",
        "problems",
    ):
        assert one[key] == other[key], key
    assert one["samples"] == 40 and one["calibration"]["nll"] == pytest.approx(other["calibration"]["nll"], rel=1e-4)
    assert len(one["worst"]) == 12
    found = {each["file"]: each["probability"] for each in other["worst"]}
    assert {each["file"]: each["probability"] for each in one["worst"]} == pytest.approx(found, rel=1e-3)


def test_a_file_takes_the_classes_of_a_bundle(linear_bundle, tmp_path):
    (tmp_path / "own" / "green").mkdir(parents=True)
    Image.new("RGB", (8, 8), (0, 250, 0)).save(tmp_path / "own" / "green" / "a.png")
    network = open_classifier(linear_bundle / "model.fp32.onnx", like=linear_bundle, backend="onnxruntime")
    one, other = measure(network, tmp_path / "own"), measure(open_classifier(linear_bundle), tmp_path / "own")
    assert (one.accuracy, one.variant, other.variant) == (1.0, "model.fp32.onnx", "fp32")
    assert one.calibration == other.calibration


def test_a_file_of_other_classes_is_refused(exported, linear_bundle, images):
    checkpoint, _ = exported
    file = linear_bundle / "model.fp32.onnx"
    with pytest.raises(
        BackendError, match=r"its input is another\n  found: float32 \(batch, 3, 4, 4\)\n  allowed: one input of"
    ):
        open_classifier(file, like=checkpoint.path)
    network = open_classifier(file, like=linear_bundle)
    two = replace(network, classes=("red", "green"), columns=2)
    message = r"model.fp32.onnx has other outputs(?s:.)*found: \(1, 3\) for 1 image\n(?s:.)*\(1, 2\)"
    with pytest.raises(BackendError, match=message):
        two.run(np.zeros((1, 3, 4, 4), dtype=np.float32))


def _graph(path, nodes, output, *, dtype=TensorProto.FLOAT, shape=("batch", 3, 4, 4), more=()):
    given = helper.make_tensor_value_info("x", dtype, shape)
    constants = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "g", [given, *more], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


CONSTANTS = {"axes": np.array([2, 3]), "seven": np.array([-1, 7])}
MEAN = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
LOGITS = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 3))


def test_what_does_not_compute_logits_of_images_is_refused_before_any_image(linear_bundle, tmp_path):
    cast = helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)
    mean = helper.make_node("ReduceMean", ["f"], ["y"], axes=[2, 3], keepdims=0)
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    maps = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 3, 4, 4))
    two = helper.make_tensor_value_info("z", TensorProto.FLOAT, ("batch", 3))
    listed = [MEAN, helper.make_node("SequenceConstruct", ["y"], ["s"])]
    for number, (arguments, options, message) in enumerate(
        (
            (([cast, mean], LOGITS), {"dtype": TensorProto.INT64}, "its input is another(?s:.)*int64"),
            ((listed, sequence), {}, "its output is another(?s:.)*seq"),
            (([helper.make_node("Relu", ["x"], ["y"])], maps), {}, r"its output is another(?s:.)*\(batch, 3, 4, 4\)"),
            (([MEAN], LOGITS), {"more": [two]}, "its input is another(?s:.)*float32 .*, float32"),
        )
    ):
        file = _graph(tmp_path / f"{number}.onnx", *arguments, **options)
        with pytest.raises(BackendError, match=message):
            open_classifier(file, like=linear_bundle)


def test_a_graph_that_fails_while_it_runs_is_one_message(tmp_path):
    reshaped = helper.make_node("Reshape", ["x", "seven"], ["y"])
    file = _graph(tmp_path / "x.onnx", [reshaped], helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 7)))
    with pytest.raises(BackendError, match=r"cannot compute \S+x\.onnx\n  found: .*Reshape(?s:.)*next: "):
        open_session(file).bind(np.zeros((2, 3, 4, 4), np.float32))()


def test_a_fixed_batch_is_filled_up(linear_bundle, tmp_path):
    file = _graph(
        tmp_path / "x.onnx", [MEAN], helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 3)), shape=(3, 3, 4, 4)
    )
    images = np.random.default_rng(0).normal(size=(7, 3, 4, 4)).astype(np.float32)
    found = open_classifier(file, like=linear_bundle).run(images)
    np.testing.assert_allclose(found, images.mean((2, 3)), atol=1e-6)


def test_options_that_would_be_ignored_are_refused(exported, linear_bundle):
    checkpoint, graphs = exported
    graph = graphs["fp32"].graph
    for path, options, message in (
        (graph, {}, "without class names and preprocessing"),
        (graph, {"like": linear_bundle, "variant": "fp32"}, "is a file: remove variant"),
        (linear_bundle, {"like": checkpoint.path}, "is a folder: remove like"),
        (checkpoint.path, {"variant": "fp32", "backend": "onnxruntime"}, "is a checkpoint: remove variant and backend"),
    ):
        with pytest.raises(UsageError, match=message):
            open_classifier(path, **options)


def test_folders_of_something_else_are_refused(small_digits, tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        open_classifier(tmp_path)
    with pytest.raises(ArtifactError, match=r"another kind(?s:.)*found: dataset"):
        open_classifier(small_digits.path)


def test_a_checkpoint_needs_torch_and_says_so(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="a checkpoint needs torch"):
        open_classifier(exported[0].path)


def test_weights_alone_and_what_is_not_there_are_told_apart(tmp_path):
    (tmp_path / "last.pth.tar").touch()
    with pytest.raises(UsageError, match=r"weights without a network(?s:.)*scheme: none"):
        open_classifier(tmp_path / "last.pth.tar")
    with pytest.raises(BundleError, match="gone.onnx does not exist"):
        open_classifier(tmp_path / "gone.onnx")
