"""What `edgekd eval` opens: the same network gives the same figures as a checkpoint, as a file and in a bundle."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from edgekd.data.reader import open_reader
from edgekd.errors import ArtifactError, BackendError, BundleError, MissingDependencyError, UsageError
from edgekd.models.classifiers import open_classifier
from edgekd.runtime.accuracy import measure


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
    with pytest.raises(BackendError, match="the input 'input' has another shape"):
        measure(open_classifier(file, like=checkpoint.path), images)
    network = open_classifier(file, like=linear_bundle)
    two = replace(network, classes=("red", "green"), columns=2)
    message = r"model.fp32.onnx has other outputs(?s:.)*found: \(1, 3\) for 1 image\n(?s:.)*\(1, 2\)"
    with pytest.raises(BackendError, match=message):
        two.run(np.zeros((1, 3, 4, 4), dtype=np.float32))


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
