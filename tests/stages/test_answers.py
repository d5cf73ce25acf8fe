"""Images without labels: a trained student is quantized, and measured by how often it agrees with itself in float."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from edgekd import pipeline
from edgekd.data.dataset import open_split
from edgekd.data.reader import open_reader
from edgekd.data.sources import UNLABELLED, source_named
from edgekd.errors import RecipeError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.weights import save_state
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import DataSettings
from edgekd.report.headline import headline
from edgekd.report.record import parse
from edgekd.runtime import load
from edgekd.runtime.statistics import wilson
from edgekd.stages.answers import float_logits
from edgekd.store.artifacts import read_json

TEACHER = {"model": "cifar/resnet8", "train": {}}
PTQ = {"mode": "ptq", "calibration_images": 32}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos in folders that are no classes, and the weights of a network of seven classes that is not trained."""
    folder = tmp_path_factory.mktemp("unlabelled")
    digits = source_named("digits").read(DataSettings(source="digits")).splits["train"]
    for number in range(120):
        inside = folder / "photos" / ("2024/may" if number % 3 else ".")
        inside.mkdir(parents=True, exist_ok=True)
        digits.image(number).save(inside / f"{number}.png")
    torch.manual_seed(1)
    network = build(Architecture(model="cifar/resnet8", num_classes=7))
    for _ in range(20):  # batch norms with statistics of their own
        network.train()(torch.randn(32, 3, 16, 16) + torch.randn(32, 3, 1, 1))
    save_state(network, folder / "weights.safetensors")
    return folder


def recipe_of(place, **sections):
    return from_mapping(
        {
            "name": "shelf",
            "data": {"source": "unlabelled", "root": str(place / "photos"), "image_size": 16, "test": 0.4},
            "student": {"model": "cifar/resnet8", "checkpoint": str(place / "weights.safetensors")},
            "distill": {"scheme": "none"},
            "quantize": PTQ,
            "export": {
                "variants": ["fp32", "int8", "int8-asym"],
                "tolerance": {name: {"difference": 2.0, "agreement": 0.3} for name in ("int8", "int8-asym")},
            },
            "bench": {"seconds": 0.02, "warmup_seconds": 0.0, "batch_sizes": [1]},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def finished(place):
    return pipeline.run(recipe_of(place), place / "run")


def test_the_labels_are_the_float_students_answers_and_training_images_have_none(finished, place):
    data = finished.made.data
    assert data.details.counts == {"train": 65, "validation": 7, "test": 48}
    assert data.classes == tuple(f"class {number}" for number in range(7))
    assert set(open_split(data, "train").labels.tolist()) == {UNLABELLED}
    network = checkpoints.load(finished.made.networks[next(iter(finished.made.networks))])
    reader = open_reader(data, "test")
    with torch.no_grad():
        logits = network(torch.from_numpy(reader.inputs(reader.first(len(reader))))).numpy()
    assert np.allclose(logits, float_logits(data), atol=1e-4)
    assert reader.split.labels.tolist() == logits.argmax(1).tolist()


def test_a_budget_is_one_of_agreement(finished, place):
    agreements = {row["variant"]: row["agreement"] for row in finished.made.scores.rows}
    for limit in (0.01, 1.0):
        recipe = recipe_of(place, budget={"agreement": limit, "variant": "int8-asym"})
        verdict = pipeline.run(recipe, place / "run").budget
        assert verdict.bounds[0].value == agreements["int8-asym"]
        assert verdict.bounds[0].met == (agreements["int8-asym"] >= limit)


def test_agreement_and_the_error_of_the_logits_are_those_of_the_files(finished):
    """Against ONNX Runtime and a formula written anew."""
    data = finished.made.data
    reader = open_reader(data, "test")
    inputs, reference = reader.inputs(reader.first(len(reader))), np.array(float_logits(data), dtype=np.float64)
    rows = {row["model"]: row for row in finished.made.scores.rows}
    assert rows["student-fp32"]["agreement"] == 1.0 and rows["student-fp32"]["logit_error"] < 1e-4
    row = rows["quantized-int8-asym"]
    graph = next(model.graph for name, model in finished.made.exported.models.items() if str(name) == row["model"])
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: inputs})[0].astype(np.float64)
    same = int((logits.argmax(1) == reference.argmax(1)).sum())
    assert row["agreement"] == same / 48 and row["interval"] == list(wilson(same, 48)) and row["samples"] == 48
    difference = np.array([one - other for one, other in zip(logits, reference, strict=True)])
    assert row["logit_error"] == pytest.approx(
        np.sqrt(np.var(difference, axis=1).sum() / np.var(reference, axis=1).sum())
    )
    assert 0.0 < row["logit_error"] < 0.5


def test_what_is_shown_is_an_agreement_and_nowhere_called_an_accuracy(finished, place):
    """An accuracy of a file without labels would be an invention."""
    bundle = json.loads((finished.bundle / "bundle.json").read_text())
    assert all("agreement" in record["metrics"] for record in bundle["variants"].values())
    report = read_json(place / "run" / "report.json")
    assert report["data"]["measure"] == "agreement" and all(0 <= each["logit_error"] for each in report["models"])
    written = [finished.bundle / "bundle.json", place / "run" / "report.json", *(place / "run/stages").glob("*/*.json")]
    assert not [file for file in written if "accuracy" in file.read_text()]
    card, page = (finished.bundle / "card.md").read_text(), finished.report.read_text()
    assert (
        "## Agreement with fp32" in card
        and "these figures are no accuracy" in card
        and "| error of the logits |" in card
    )
    # Which file an app loads here is measured: the sentence about either.
    sentences = {
        loaded: headline(parse({**report, "loaded": loaded})) for loaded in ("student-fp32", "quantized-int8-asym")
    }
    assert any(sentence in page for sentence in sentences.values())
    assert "int8-asym gives " in sentences["student-fp32"] and "as in fp32" not in sentences["student-fp32"]
    assert " of the answers as in fp32, no labels given, at " in sentences["quantized-int8-asym"]
    assert "Agreement with fp32" in page and "Accuracy" not in page and "accurate" not in page
    assert load(finished.bundle).verify().images


def test_pruned_and_quantized_students_learn_from_their_own_float_answers(place):
    steps = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, "precision": "fp32"}
    recipe = recipe_of(place, quantize={**steps, "calibration_images": 32})
    made = pipeline.run_until("quantize", recipe, place / "qad")
    assert [term["method"] for term in made.details.training.objective] == ["kd"]
    (epoch,) = made.metrics["history"]
    assert epoch["validation_agreement"] == made.metrics["validation_agreement"] and "accuracy" not in str(made.metrics)


def test_streamed_images_can_be_opened_again(place):
    data = {**recipe_of(place).settings.data.model_dump(mode="json"), "storage": "streamed"}
    made = pipeline.run_until("answers", recipe_of(place, data=data), place / "streamed")
    split = open_split(made, "test")
    assert split.streamed and split.pixels(np.array([0, 1])).shape == (2, 16, 16, 3)


def test_a_student_that_answers_one_class_for_every_image_is_named(place):
    network = build(Architecture(model="cifar/resnet8", num_classes=7))
    torch.nn.init.zeros_(list(network.modules())[-1].weight)
    save_state(network, place / "constant.safetensors")
    student = {"model": "cifar/resnet8", "checkpoint": str(place / "constant.safetensors")}
    made = pipeline.run_until("answers", recipe_of(place, student=student), place / "constant")
    assert "The student in float, on the test images: the same output for every image." in made.metrics["warnings"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"distill": {}, "teacher": TEACHER},
            "offline trains and measures on labels(.*)none",
        ),
        (
            {"teacher": TEACHER},
            "measured by its own float answers(.*)remove the teacher",
        ),
        (
            {"quantize": {"objective": [{"method": "cross_entropy"}]}},
            "cross_entropy in quantize.objective needs labels",
        ),
    ],
)
def test_what_needs_labels_is_refused_by_name(place, sections, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of(place, **sections)


def test_classes_belong_to_images_without_labels(place):
    data = {"source": "digits", "classes": ["a", "b"]}
    with pytest.raises(RecipeError, match="the source digits does not use classes(.*)remove it"):
        recipe_of(place, data=data)


def test_a_plan_knows_the_students_classes(place, tmp_path):
    names = "\n".join(["shoe", "boot", "sandal", "slipper", "clog", "sock", "hat", ""])
    (tmp_path / "names.txt").write_text(names)
    data = recipe_of(place).settings.data.model_dump(mode="json")
    planned = pipeline.plan(recipe_of(place, data={**data, "classes": str(tmp_path / "names.txt")}), tmp_path / "run")
    assert planned[0].why.startswith(
        "not made yet: 65 train, 7 validation, 48 test, 7 classes, 16x16 pixels, no labels"
    )
    assert [stage.name for stage in planned[:4]] == ["data", "preflight", "answers", "distill"]
    with pytest.raises(UsageError, match=r"data.classes does not fit(?s:.)*3 names(?s:.)*7, one per logit"):
        pipeline.plan(recipe_of(place, data={**data, "classes": ["a", "b", "c"]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_images_is_refused(place, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    data = {"source": "unlabelled", "root": str(tmp_path), "image_size": 16}
    with pytest.raises(Exception, match="too few distinct images to be split"):
        pipeline.plan(recipe_of(place, data=data), tmp_path / "run")
