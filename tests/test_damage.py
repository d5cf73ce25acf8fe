"""Files that a run or an app reads again, damaged or forged in every field: one message, or the right answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import DAMAGES, VALUES, changed, places, write_forged
from records import sets_record, whole_record
from samples import seal_bundle, write_bundle_json

from edgekd.data.dataset import Dataset, names_of, open_split
from edgekd.errors import ArtifactError, BackendError, BundleError, EdgekdError
from edgekd.export.bundle import Bundle, BundleDetails, publish
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.report.html import write
from edgekd.runtime import load
from edgekd.runtime.bundle import EngineKey
from edgekd.store.artifacts import MANIFEST, read_json, write_json


def _read(file: Path, out: Path) -> None:
    write(read_json(file), out, file)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_json_is_refused_by_every_reader(linear_bundle, exported, tmp_path, damage):
    file = linear_bundle / "bundle.json"
    file.write_bytes(damage(file.read_text()))
    with pytest.raises(BundleError, match=r"bundle\.json (?s:.)*\n  next: "):
        load(linear_bundle)
    report = tmp_path / "report.json"
    report.write_bytes(damage(json.dumps(whole_record())))
    with pytest.raises(ArtifactError, match=r"report\.json (?s:.)*\n  next: "):
        _read(report, tmp_path / "report.html")
    copied = shutil.copytree(exported[0].path, tmp_path / "checkpoint")
    (copied / MANIFEST).write_bytes(damage((copied / MANIFEST).read_text()))
    with pytest.raises(ArtifactError, match=rf"{MANIFEST} (?s:.)*\n  next: "):
        Checkpoint.load(copied)


def test_a_forged_bundle_answers_as_it_did_or_is_refused(linear_bundle):
    whole = json.loads((linear_bundle / "bundle.json").read_text())
    here = str(EngineKey.here("onnxruntime"))
    whole["engines"] = {here: ["fp32"], "onnxruntime": ["fp32"]}
    whole["measured"] = {here: {"cpu": "AMD EPYC", "instruction_sets": ["sve"], "rounds": 15}}
    image = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    expected, refused = load(linear_bundle)(image).scores, 0
    for place in places(whole):
        for value in VALUES:
            write_bundle_json(linear_bundle, changed(whole, place, value))
            try:
                model = load(linear_bundle)
                model.verify()
                np.testing.assert_array_equal(model(image).scores, expected)
            except (BundleError, BackendError) as error:
                assert error.hint, error
                refused += 1
    assert refused > 200


def _reported(record: dict[str, Any], tmp_path: Path) -> int:
    rng, refused = np.random.default_rng(0), 0
    for place in list(places(record))[::6]:  # a page takes a while to make
        value = VALUES[rng.integers(len(VALUES))]
        write_json(tmp_path / "report.json", changed(record, place, value))
        try:
            _read(tmp_path / "report.json", tmp_path / "report.html")
        except ArtifactError as error:
            assert error.hint and "report.json" in error.what, error
            refused += 1
    return refused


def test_a_forged_record_makes_a_report_or_is_refused(tmp_path):
    assert _reported(whole_record(), tmp_path) > 25
    assert _reported(sets_record(), tmp_path) > 25


@pytest.mark.parametrize("name", ["dataset", "checkpoint", "graph"])
def test_a_forged_artifact_is_read_or_refused(exported, small_digits, tmp_path, name):
    artifact = {"dataset": small_digits, "checkpoint": exported[0], "graph": exported[1]["fp16"]}[name]
    folder = shutil.copytree(artifact.path, tmp_path / "forged")
    whole, refused = json.loads((folder / MANIFEST).read_text()), 0
    rng = np.random.default_rng(0)
    for place in places(whole):
        for value in (VALUES[index] for index in rng.choice(len(VALUES), 3, replace=False)):
            write_forged(folder, changed(whole, place, value))
            try:
                opened = type(artifact).load(folder)
                if isinstance(opened, Checkpoint) and place[0] == "details":
                    checkpoints.load(opened)
                if isinstance(opened, Dataset) and place[0] == "details":
                    open_split(opened, "test").labels.sum()
            except EdgekdError as error:
                assert str(folder) in str(error) and (error.hint or error.allowed), (place, value, error)
                refused += 1
    assert refused > 50


def test_a_bundle_that_no_app_could_load_is_not_published(linear_bundle, tmp_path):
    def sealed(*names: str) -> Bundle:
        return Bundle.seal(linear_bundle, details=BundleDetails(name="x", variants=names, engines={}, reasons={}))

    publish(sealed("fp32"), tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"bundle\.json has other variants than the run(?s:.)*fp32(?s:.)*int8"):
        publish(sealed("fp32", "int8"), tmp_path / "out")
    write_bundle_json(linear_bundle, {**json.loads((linear_bundle / "bundle.json").read_text()), "classes": 3})
    with pytest.raises(ArtifactError, match=r"bundle\.json is not valid(?s:.)*classes is 3(?s:.)*to make it again"):
        publish(sealed("fp32"), tmp_path / "out")
    assert load(tmp_path / "out").verify().images == 3


def test_names_that_do_not_belong_to_the_images_are_refused(small_digits, tmp_path):
    folder = shutil.copytree(small_digits.path, tmp_path / "forged")
    whole = json.loads((folder / MANIFEST).read_text())
    for names, message in (
        (["a"], "has 1 names(?s:.)*one for each of the"),
        (3, "names: Input should"),
        ([3], "names.0"),
    ):
        write_json(folder / "test-names.json", {"names": names})
        write_forged(folder, whole)
        with pytest.raises(ArtifactError, match=rf"test-names\.json (?s:.)*{message}"):
            names_of(Dataset.load(folder), "test", [0, 1])


@pytest.mark.parametrize(
    ("vector", "value"),
    [
        ("images", np.zeros((3, 4, 4, 3), np.float32)),
        ("images", np.zeros((3, 2, 2, 3), np.uint8)),
        ("input", np.zeros((0, 3, 4, 4), np.float32)),
        ("logits.fp32", np.zeros(3, np.float32)),
        ("logits.fp32", np.array(["a", "b"])),
    ],
)
def test_vectors_that_are_none_are_refused(linear_bundle, vector, value):
    np.save(linear_bundle / "vectors" / f"{vector}.npy", value)
    seal_bundle(linear_bundle, json.loads((linear_bundle / "bundle.json").read_text()))
    with pytest.raises(BundleError, match="not a test vector of this bundle|gives other inputs"):
        load(linear_bundle).verify()


def test_a_manifest_of_another_network_is_refused(linear_bundle):
    manifest = json.loads((linear_bundle / "bundle.json").read_text())
    for changes in (
        {"classes": ["red", "green"]},
        {"preprocessing": {**manifest["preprocessing"], "image_size": 8, "resize": 8}},
        {"preprocessing": {**manifest["preprocessing"], "mean": [0.5], "std": [0.5]}},
    ):
        write_bundle_json(linear_bundle, {**manifest, **changes})
        with pytest.raises(BundleError, match=r"does not describe the (in|out)put of model\.fp32\.onnx"):
            load(linear_bundle)
