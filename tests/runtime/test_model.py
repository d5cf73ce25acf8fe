from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from samples import seal_bundle, write_bundle_json

from edgekd.errors import BackendError, BundleError, DataError, RangeError, UnknownNameError, UsageError
from edgekd.runtime import load
from edgekd.runtime.backends import open_session

RED, BLUE = (250, 10, 20), (10, 20, 250)


def test_a_path_an_image_an_array_and_a_batch_give_the_same_answers(linear_bundle, tmp_path):
    model = load(linear_bundle)
    image = Image.new("RGB", (9, 6), RED)
    image.save(tmp_path / "red.png")
    array = np.asarray(image)
    answers = [model(tmp_path / "red.png"), model(str(tmp_path / "red.png")), model(image), model(array)]
    assert {answer.label for answer in answers} == {"red"}
    assert len({answer.scores.tobytes() for answer in answers}) == 1
    content = (tmp_path / "red.png").read_bytes()
    with (tmp_path / "red.png").open("rb") as file:
        passed = [content, io.BytesIO(content), file, model_order := array[:, :, ::-1]]
        others = [model(each) for each in passed[:3]] + [model(model_order, order="bgr")]
    assert len({answer.scores.tobytes() for answer in (*answers, *others)}) == 1
    assert model(array, order="bgr").label == "blue"
    clear = np.dstack([array, np.zeros((6, 9), np.uint8)])  # transparent: the background, white
    assert model(clear).scores.tobytes() == model(np.full((6, 9, 3), 255, np.uint8)).scores.tobytes()
    with pytest.raises(UsageError, match="allowed: rgb, bgr"):
        model(array, order="gbr")
    batch = model([image, Image.new("RGB", (4, 4), BLUE)])
    assert [answer.label for answer in batch] == ["red", "blue"]
    assert [answer.label for answer in model(np.stack([array, array]))] == ["red", "red"]
    assert model([]) == []


def test_scores_are_a_softmax_and_top_is_sorted(linear_bundle):
    answer = load(linear_bundle)(Image.new("RGB", (4, 4), (255, 0, 51)))
    powers = np.exp([1.0, 0.0, 0.2])
    np.testing.assert_allclose(answer.scores, powers / powers.sum(), rtol=1e-5)
    assert [name for name, _ in answer.top(2)] == ["red", "blue"]
    assert answer.score == pytest.approx(float(answer.scores[0]))
    assert len(answer.top(9)) == 3
    assert str(answer) == ", ".join(f"{name} {100 * score:.1f} %" for name, score in answer.top(3))
    assert str(answer).startswith("red ")
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match=f"k must be a whole number of at least 1\n  found: {wrong}"):
            answer.top(wrong)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_a_number_of_threads_that_is_none_is_refused(linear_bundle, threads):
    with pytest.raises(UsageError, match="threads must be a whole number of at least 1"):
        load(linear_bundle, threads=threads)
    with pytest.raises(UsageError, match="threads must be a whole number of at least 1"):
        open_session(linear_bundle / "model.fp32.onnx", threads=threads)


def test_further_heads_answer_from_the_columns_behind_the_first(linear_bundle):
    file = linear_bundle / "bundle.json"
    heads = {"z": {"classes": ["blue"], "columns": [2, 3]}, "blueness": {"classes": ["green"], "columns": [1, 2]}}
    write_bundle_json(linear_bundle, {**json.loads(file.read_text()), "classes": ["red"], "heads": heads})
    assert [head.columns for head in load(linear_bundle).heads.values()] == [slice(1, 2), slice(2, 3)]
    heads = {"blueness": {"classes": ["green", "blue"], "columns": [1, 3]}}
    write_bundle_json(linear_bundle, {**json.loads(file.read_text()), "classes": ["red"], "heads": heads})
    model = load(linear_bundle)
    answer, other = model([Image.new("RGB", (4, 4), (255, 0, 51)), Image.new("RGB", (4, 4), (0, 255, 51))])
    assert (answer.label, answer.heads["blueness"].label, other.heads["blueness"].label) == ("red", "blue", "green")
    powers = np.exp([0.0, 0.2])
    np.testing.assert_allclose(answer.heads["blueness"].scores, powers / powers.sum(), rtol=1e-5)
    assert answer.scores == pytest.approx([1.0])
    assert model.heads["blueness"].classes == ("green", "blue")


def test_grey_alpha_and_sixteen_bit_images_are_understood(linear_bundle):
    model = load(linear_bundle)
    grey16 = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    white = model(np.full((4, 4), 255, dtype=np.uint8)).scores
    np.testing.assert_allclose(model(grey16).scores, white, rtol=1e-6)
    np.testing.assert_array_equal(model(np.full((1, 4, 4, 1), 255, dtype=np.uint8))[0].scores, white)
    clear = model(Image.new("RGBA", (4, 4), (*BLUE, 0)))  # the background is white
    np.testing.assert_allclose(clear.scores, white, rtol=1e-6)


def test_what_is_normalised_already_is_refused_by_name(linear_bundle, tmp_path):
    model = load(linear_bundle)
    values = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32)
    found = r"an array \(6, 5, 3\) of float32, values from -\S+ to \d\S+"
    with pytest.raises(DataError, match=rf"{found}(?s:.)*next: .*not normalised.*normalised already.*Model\.run\(\)"):
        model(values)
    grey = Image.fromarray(values[:, :, 0])
    grey.save(tmp_path / "normalised.tif")
    for given, name in ((grey, "the image"), (tmp_path / "normalised.tif", r"\S+normalised\.tif")):
        with pytest.raises(RangeError, match=rf"^{name} has values outside .*\n  found: values from -(?s:.)*Model"):
            model(given)
    with pytest.raises(DataError, match="an array .* of float32, NaN"):
        model(np.full((4, 4, 3), np.nan, np.float32))


def test_verify_replays_the_vectors(linear_bundle):
    verification = load(linear_bundle).verify()
    assert verification.images == 3 and verification.difference < 1e-5


def test_verify_notices_an_engine_that_computes_something_else(linear_bundle):
    vectors = linear_bundle / "vectors" / "logits.fp32.npy"
    np.save(vectors, np.load(vectors) * 1.01)
    seal_bundle(linear_bundle, json.loads((linear_bundle / "bundle.json").read_text()))
    with pytest.raises(BundleError, match=r"differ from the bundle's test vectors(?s:.)*at most 1e-03"):
        load(linear_bundle).verify()


@pytest.mark.parametrize("name", ["model.fp32.onnx", "vectors/input.npy"])
def test_a_changed_file_is_refused(linear_bundle, name):
    file = linear_bundle / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was changed"):
        load(linear_bundle)


def test_a_missing_file_and_no_bundle_at_all_are_named(linear_bundle, tmp_path):
    (linear_bundle / "model.fp32.onnx").unlink()
    with pytest.raises(BundleError, match="no model.fp32.onnx"):
        load(linear_bundle)
    with pytest.raises(BundleError, match="no bundle.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "another format"),
        ({"classes": None}, "is not valid"),
        ({"preprocessing": {"mean": [0, 0]}}, "is not valid"),
        ({"vectors": {"images": "../../etc/passwd", "inputs": "x"}}, "points outside"),
        ({"heads": {"x": {"classes": ["a"], "columns": [2, 3]}}}, r"columns \[2, 3\] for its classes, not \[3, 4\]"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(linear_bundle, change, message):
    file = linear_bundle / "bundle.json"
    write_bundle_json(linear_bundle, {**json.loads(file.read_text()), **change})
    with pytest.raises(BundleError, match=message):
        load(linear_bundle)


def test_unknown_variant_and_backend(linear_bundle):
    with pytest.raises(UnknownNameError, match="did you mean 'fp32'"):
        load(linear_bundle, variant="fp23")
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        load(linear_bundle, backend="onnxruntim")


@pytest.mark.parametrize("what", [3, np.zeros((2, 2), np.float32), np.zeros((4, 4, 5), np.uint8), "not/there.png"])
def test_what_is_not_an_image_is_refused(linear_bundle, what):
    with pytest.raises(DataError, match=r"not an image|does not exist"):
        load(linear_bundle)(what)


def test_a_broken_image_is_named(linear_bundle, tmp_path):
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="half.png cannot be read"):
        load(linear_bundle)(tmp_path / "half.png")


def test_run_refuses_another_shape(linear_bundle):
    with pytest.raises(BackendError, match="another shape"):
        load(linear_bundle).run(np.zeros((1, 3, 5, 4), np.float32))


def test_the_device_side_needs_neither_torch_nor_the_workstations_packages(linear_bundle):
    code = "import sys; from edgekd.runtime import load; load(sys.argv[1]).verify();"
    code += "heavy = {'torch', 'pydantic', 'onnx', 'click', 'rich', 'yaml', 'sklearn'} & set(sys.modules);"
    code += "assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code, str(linear_bundle)], check=True)


def test_predictions_are_shown_by_their_classes(linear_bundle):
    prediction = load(linear_bundle)([np.zeros((4, 4, 3), np.uint8)])
    assert repr(prediction) == f"[Prediction({prediction[0]})]" and "%" in repr(prediction)
