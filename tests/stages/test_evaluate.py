from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd.data.dataset import names_of
from edgekd.data.reader import open_reader
from edgekd.export.model_id import ModelId
from edgekd.models import checkpoint as checkpoints
from edgekd.runtime.statistics import unpacked
from edgekd.stages.evaluate import evaluate_models, write_image
from edgekd.training.train import evaluation_loader


def test_evaluation_counts_by_hand(exported, small_digits, tmp_path):
    student, models = exported
    network = checkpoints.load(student)
    evaluation = evaluate_models({ModelId("student", "fp32"): models["fp32"]}, small_digits, tmp_path)
    (row,) = evaluation.rows
    with torch.no_grad():
        batches = evaluation_loader(small_digits, "test").epoch(0)
        right = sum(int((network(batch.images).argmax(1) == batch.targets).sum()) for batch in batches)
    assert row["samples"] == small_digits.details.counts["test"]
    assert row["accuracy"] == pytest.approx(right / row["samples"])
    assert row["interval"][0] < row["accuracy"] < row["interval"][1] or right == 0


def test_answers_are_kept_image_by_image_and_a_network_that_learned_nothing_is_named(exported, small_digits, tmp_path):
    _, models = exported
    both = {ModelId("student", name): models[name] for name in ("fp32", "fp16")}
    shown = []
    evaluation = evaluate_models(both, small_digits, tmp_path, progress=lambda *each: shown.append(each))
    images = small_digits.details.counts["test"]
    assert shown[0][1:] == (2 * images, "student-fp32") and shown[-1] == (2 * images, 2 * images, "student-fp16")
    assert [done for done, _, _ in shown] == sorted({done for done, _, _ in shown})
    one, other = evaluation.rows
    right = unpacked(one["correct"], one["samples"])
    assert (
        right.mean() == pytest.approx(one["accuracy"]) and (right == unpacked(other["correct"], 1 * len(right))).all()
    )
    # This network is not trained.
    assert one["problems"] == other["problems"] and len(one["problems"]) == 1
    assert evaluation.metrics["warnings"] == [f"student-fp32, student-fp16: {one['problems'][0]}."]
    assert 0.09 < one["majority"]["share"] < 0.2 and 0.0 <= one["balanced_accuracy"] <= 1.0


def test_the_worst_mistakes_have_their_names_and_images_and_the_calibration_is_the_networks(
    exported, small_digits, tmp_path
):
    student, models = exported
    evaluation = evaluate_models({ModelId("student", "fp32"): models["fp32"]}, small_digits, tmp_path)
    (row,) = evaluation.rows
    network, batches = checkpoints.load(student), evaluation_loader(small_digits, "test").epoch(0)
    with torch.no_grad():
        outputs = [(network(batch.images).double().softmax(1), batch.targets) for batch in batches]
    shares, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    confidence, answers = shares.max(1)
    wrong = (answers != labels).nonzero()[:, 0]
    order = wrong[confidence[wrong].argsort(descending=True)][:12].tolist()
    classes = small_digits.classes
    assert [(each["row"], each["label"], each["answer"]) for each in row["worst"]] == [
        (index, classes[labels[index]], classes[answers[index]]) for index in order
    ]
    assert [each["probability"] for each in row["worst"]] == pytest.approx(confidence[order].tolist(), rel=1e-4)
    assert [each["name"] for each in row["worst"]] == names_of(small_digits, "test", order)
    assert all(each["name"].startswith("digits[") for each in row["worst"])
    reader = open_reader(small_digits, "test")
    for each in row["worst"]:
        with Image.open(evaluation.path / each["image"]) as image:
            assert np.array_equal(np.asarray(image), reader.pixels(np.array([each["row"]]))[0])
    assert {each["image"] for each in row["worst"]} == evaluation.manifest.files.keys() - {"evaluation.json"}
    likelihood = shares[torch.arange(len(labels)), labels].log().mean()
    assert row["calibration"]["nll"] == pytest.approx(-float(likelihood), rel=1e-4)
    assert row["calibration"]["confidence"] == pytest.approx(float(confidence.mean()), rel=1e-4)
    assert row["calibration"]["accuracy"] == row["accuracy"] and len(row["calibration"]["bins"]) == 15


def test_large_images_of_mistakes_are_small_in_the_artifact(tmp_path):
    pixels = np.zeros((1, 300, 300, 3), dtype=np.uint8)
    pixels[:, :, 150:] = (255, 0, 0)
    file = tmp_path / "images" / "7.jpg"
    assert write_image(pixels[0], file.with_suffix("")) == file
    with Image.open(file) as image:
        assert (image.size, image.format) == ((96, 96), "JPEG")
        red, green, blue = image.getpixel((80, 50))
        assert red > 230 and green < 25 and blue < 25
    assert file.stat().st_size < 3000


def test_images_of_mistakes_may_be_grey_and_not_square(tmp_path):
    pixels = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30, 1)
    file = write_image(pixels, tmp_path / "images" / "3")
    assert file.name == "3.png"
    with Image.open(file) as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), pixels[:, :, 0])
    with Image.open(write_image(pixels.repeat(10, 0).repeat(10, 1), tmp_path / "images" / "4")) as image:
        assert image.size == (96, 64)
