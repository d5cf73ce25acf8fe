from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from samples import seal_bundle
from turns import given_turns

from edgekd.errors import BundleError
from edgekd.export.bundle import Contents, pack, publish
from edgekd.export.model_id import ModelId
from edgekd.recipe.settings import BenchSettings
from edgekd.runtime import load
from edgekd.runtime.bundle import EngineKey
from edgekd.stages.benchmark import measure_models
from edgekd.stages.evaluate import evaluate_models


def test_a_bundle_loads_verifies_and_carries_its_metrics(exported, small_digits, tmp_path):
    student, models = exported
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "packed").mkdir()
    named = {ModelId("student", variant): model for variant, model in models.items()}
    evaluation = evaluate_models(named, small_digits, tmp_path / "evaluation")
    (tmp_path / "measured").mkdir()
    measurements = measure_models(named, BenchSettings(batch_sizes=(1,), seconds=0.05), tmp_path / "measured")
    contents = Contents("digits", {variant: ModelId("student", variant) for variant in models}, named, student)
    bundle = pack(contents, evaluation.rows, measurements.records, small_digits, tmp_path / "packed")
    publish(bundle, tmp_path / "bundle")
    publish(bundle, tmp_path / "bundle")
    for variant in models:
        model = load(tmp_path / "bundle", variant=variant)
        assert model.verify().images == 8
        assert model.classes == student.classes
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert manifest["variants"]["fp32"]["metrics"]["accuracy"] == evaluation.rows[0]["accuracy"]
    metrics, row = manifest["variants"]["fp32"]["metrics"], evaluation.rows[0]
    assert metrics["per_class"] == {name: round(each["accuracy"], 6) for name, each in row["per_class"].items()}
    assert metrics["calibration"].items() <= row["calibration"].items() and "bins" not in metrics["calibration"]
    text = (tmp_path / "bundle" / "bundle.json").read_text()
    assert evaluation.rows[0]["worst"] and not any(each["name"] in text for each in evaluation.rows[0]["worst"])
    assert manifest["variants"]["fp32"]["latency"]["provenance"] == "measured"
    assert not (tmp_path / "bundle" / "manifest.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "evaluation", "measured", "packed"]
    photo = load(tmp_path / "bundle").manifest
    with Image.open(tmp_path / "bundle" / "vectors" / "photo.png") as written:
        assert written.mode == "RGBA" and written.width > written.height > photo.preprocessing.shape.height
        assert written.getexif()[0x0112] == 6
    pixels = np.load(tmp_path / "bundle" / "vectors" / "photo.npy")
    assert pixels.shape == (*photo.preprocessing.image_size, 3) and pixels.std() > 30
    images = np.load(tmp_path / "bundle" / "vectors" / "images.npy")
    logits = np.load(tmp_path / "bundle" / "vectors" / "logits.fp32.npy")
    answers = [digit.label for digit in load(tmp_path / "bundle", variant="fp32")(images)]
    assert answers == [student.classes[i] for i in logits.argmax(1)]


def test_a_loader_that_does_not_turn_images_or_drops_alpha_is_noticed(exported, small_digits, tmp_path):
    student, models = exported
    named = {ModelId("student", variant): model for variant, model in models.items()}
    (tmp_path / "evaluation").mkdir()
    rows = evaluate_models(named, small_digits, tmp_path / "evaluation").rows
    contents = Contents("digits", {variant: ModelId("student", variant) for variant in models}, named, student)
    (tmp_path / "packed").mkdir()
    publish(pack(contents, rows, [], small_digits, tmp_path / "packed"), tmp_path / "bundle")
    file = tmp_path / "bundle" / "vectors" / "photo.png"
    with Image.open(file) as photo:
        lying, opaque = photo.copy(), photo.convert("RGB")
    for wrong in (lying, opaque.transpose(Image.Transpose.ROTATE_270)):
        wrong.save(file)
        seal_bundle(tmp_path / "bundle", json.loads((tmp_path / "bundle" / "bundle.json").read_text()))
        with pytest.raises(BundleError, match=r"read in another way(?s:.)*differ by up to \d+ of 255 levels"):
            load(tmp_path / "bundle").verify()


def test_the_order_flips_with_the_turns_and_is_recorded_with_its_reason(exported, small_digits, tmp_path, monkeypatch):
    # As on a processor that computes in half precision.
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    student, models = exported
    named = {ModelId("student", variant): model for variant, model in models.items()}
    (tmp_path / "evaluation").mkdir()
    rows = evaluate_models(named, small_digits, tmp_path / "evaluation").rows
    contents = Contents("digits", {variant: ModelId("student", variant) for variant in models}, named, student)
    here = str(EngineKey.here("onnxruntime"))
    for half, first, verdict in (
        (0.5, "fp16", "fp16 wins: 2.0× faster"),
        (1.5, "fp32", "fp32 is the default; fp16 loses: 1.5× slower"),
    ):
        folder = tmp_path / first
        folder.mkdir()
        turns = given_turns({"fp32": 1.0, "fp16": half})
        bundle = pack(contents, rows, [], small_digits, folder, turns=[turns])
        manifest = json.loads((folder / "bundle.json").read_text())
        assert bundle.details.engines[here][0] == manifest["engines"][here][0] == first
        assert verdict in manifest["reasons"][here] == bundle.details.reasons[here]
        assert manifest["measured"] == {here: turns.model_dump(mode="json")}
        assert f"ONNX Runtime on aarch64: {manifest['reasons'][here]}" in (folder / "card.md").read_text()
    assert manifest["engines"]["onnxruntime"] == ["fp32", "fp16"]
    assert manifest["reasons"]["onnxruntime"] == "by rule, not measured"


def test_an_emulated_latency_is_marked(exported, small_digits, tmp_path):
    student, models = exported
    named = {ModelId("student", variant): model for variant, model in models.items()}
    for name in ("evaluation", "measured"):
        (tmp_path / name).mkdir()
    evaluation = evaluate_models(named, small_digits, tmp_path / "evaluation")
    records = measure_models(named, BenchSettings(batch_sizes=(1,), seconds=0.02), tmp_path / "measured").records
    contents = Contents("digits", {variant: ModelId("student", variant) for variant in models}, named, student)
    for name, provenance in (("a", "measured"), ("b", "emulated")):
        (tmp_path / name).mkdir()
        marked = [{**record, "provenance": provenance} for record in records]
        bundle = pack(contents, evaluation.rows, marked, small_digits, tmp_path / name)
        manifest = json.loads((bundle.path / "bundle.json").read_text())
        assert manifest["variants"]["fp32"]["latency"]["provenance"] == provenance
